"""Version of featreg."""

__version__ = "0.1.0"
