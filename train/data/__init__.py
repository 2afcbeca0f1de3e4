"""Aligned shards as torch datasets."""
