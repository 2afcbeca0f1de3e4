"""Provenance of results besides the configuration: versions, machine and command line."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from featreg.datasets.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of featreg, Python and the numerical packages."""
    packages = ("torch", "lightning", "numpy", "scikit-learn", "h5py")
    return {
        "featreg": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def command_line() -> str:
    """Return the command line of this process, such as ``train table1 --seeds 3``."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def machine(device: str) -> dict[str, str | int]:
    """Return the platform, the processor or accelerator, and the numbers of cores and threads."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    return {
        "platform": platform.platform(),
        "device": f"{device} ({name or platform.machine()})",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
