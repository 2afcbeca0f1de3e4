"""Many runs: comparisons, sweeps and the tables of the paper."""
