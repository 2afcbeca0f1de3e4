"""Free disk space of files and folders that may not exist yet."""

from __future__ import annotations

import shutil
from pathlib import Path


def existing(path: Path) -> Path:
    """`path`, or its nearest parent folder that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of `path`, which need not exist."""
    return shutil.disk_usage(existing(path)).free
