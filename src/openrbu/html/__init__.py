"""Pages: one HTML file each, with its own program, and nothing from elsewhere."""
