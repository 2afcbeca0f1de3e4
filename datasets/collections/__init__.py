"""The datasets that featreg knows, and the user's own clips."""
