"""Extractors: pre-trained models that compute features from audio."""
