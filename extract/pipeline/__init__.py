"""From a list of clips to native shards, on one machine or many."""
