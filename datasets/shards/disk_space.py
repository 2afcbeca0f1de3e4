"""Where something will lie that is not there yet, and how much room is there."""

from __future__ import annotations

import shutil
from pathlib import Path


def existing(path: Path) -> Path:
    """`path`, or the nearest of the folders above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def free_bytes(path: Path) -> int:
    """Bytes free on the disk where `path` lies or will lie."""
    return shutil.disk_usage(existing(path)).free
