"""One run: prepared, trained, saved, measured, and what it leaves in its folder."""
