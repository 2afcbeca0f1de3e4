"""Trained weights: where they are published, and how they are read."""
