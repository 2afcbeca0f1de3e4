"""Aligned shards in, models out: ``train``."""
