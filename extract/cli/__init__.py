"""The command ``prep``, a file for each group of commands."""
