"""Aligned shards in, models out: encoders, regularizers, and ``train``."""
