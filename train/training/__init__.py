"""Training of one run: objective, training loop, checkpoints and run folder."""
