"""``python -m featreg.train``: the command `train`, where no script is on the path."""

import sys

from .cli.train import train

sys.argv[0] = "train"  # a run notes what was typed
train(prog_name="train")
