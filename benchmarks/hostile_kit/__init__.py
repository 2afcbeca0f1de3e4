"""Hostile inputs of every kind, each with what must come of it (see `benchmarks/hostile.py`)."""
