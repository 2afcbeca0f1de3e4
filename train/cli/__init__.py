"""The command ``train``, a file for each group of commands."""
