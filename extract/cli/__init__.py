"""The command ``prep``, with one file for each group of subcommands."""
