"""Encoders and classifiers, one file each."""
