"""Results as HTML, figures and tables."""
