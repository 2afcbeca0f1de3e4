"""Encoders, the decoder, and the classifiers made of them."""
