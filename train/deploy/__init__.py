"""Trained models in use: files, predictions, export."""
