"""Download, conversion and loading of trained weights."""
