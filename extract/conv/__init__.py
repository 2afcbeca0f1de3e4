"""Convolutions and matrix products on the CPU, as fast as the processor allows."""
