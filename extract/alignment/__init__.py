"""From native shards to aligned shards, on one time grid."""
