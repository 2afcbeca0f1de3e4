"""Reports of results: HTML pages, figures and tables."""
