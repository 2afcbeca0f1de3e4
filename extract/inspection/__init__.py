"""Description, verification and plots of shards, and checks of this machine."""
