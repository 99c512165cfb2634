"""Finished runs side by side: paired statistics, tables, pages, pictures."""
