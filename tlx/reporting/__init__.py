"""What a person looks at: terminal display, tables, plots, pages."""
