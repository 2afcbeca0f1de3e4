"""Audio files: opened, checked, decoded, resampled."""
