"""Hostile inputs of every kind with their expected outcomes (see `benchmarks/hostile.py`)."""
