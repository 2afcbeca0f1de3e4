"""Readers and downloads of the supported datasets and of the user's own clips."""
