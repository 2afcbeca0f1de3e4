"""What is on disk and on this machine: described, verified, plotted."""
