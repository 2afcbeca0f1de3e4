"""Training, evaluation and use of classifiers on aligned shards."""
