"""Run the command `train` as ``python -m featreg.train``."""

import sys

from .cli.train import train

sys.argv[0] = "train"  # a run stores its command line
train(prog_name="train")
