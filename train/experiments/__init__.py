"""Experiments of several runs: comparisons, sweeps, and the tables and figures of the paper."""
