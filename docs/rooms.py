"""Lets the API reference see the three folders as the package that they are installed as."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

ROOMS = ("datasets", "extract", "train")


@event_priority(50)  # before mkdocstrings reads its own configuration
def on_config(config: Any) -> Any:
    """Point mkdocstrings to a folder `featreg` with a link to each room."""
    folder = tempfile.TemporaryDirectory(prefix="featreg-docs-")
    atexit.register(folder.cleanup)
    package = Path(folder.name, "featreg")
    package.mkdir()
    root = Path(config.config_file_path).parent
    for room in ROOMS:
        (package / room).symlink_to(root / room)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [folder.name]
    return config
