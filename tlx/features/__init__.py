"""The frozen part of a network: traced, fused, run in batches, its output cached."""
