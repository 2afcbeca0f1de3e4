"""The version of featreg, defined here only."""

__version__ = "0.2.0.dev0"
