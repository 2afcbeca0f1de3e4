"""One run: the objective, the loop, checkpoints and the run folder."""
