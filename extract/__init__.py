"""Audio in, features out: the extractors, their alignment in time, and ``prep``."""
