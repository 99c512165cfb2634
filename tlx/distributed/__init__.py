"""Ranks of one run: started, kept in step, and the work divided among them."""
