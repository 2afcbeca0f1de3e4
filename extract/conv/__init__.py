"""Fast convolutions and matrix products on the CPU."""
