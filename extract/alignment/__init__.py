"""Alignment: native shards resampled in time to aligned shards on one time grid."""
