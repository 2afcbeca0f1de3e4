"""Feature extraction: the extractors, alignment of features in time, and the command ``prep``."""
