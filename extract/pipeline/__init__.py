"""The extraction pipeline: from a list of clips to native shards, on one or more machines."""
