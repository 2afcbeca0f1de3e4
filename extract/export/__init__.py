"""Export of embeddings: from shards, or directly from audio files."""
