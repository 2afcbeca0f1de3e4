"""Predictions of a trained model, and the metrics of them."""
