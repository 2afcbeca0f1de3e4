"""Losses that shape the embedding space by pre-trained features, one file each."""
