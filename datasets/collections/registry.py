"""The supported datasets and the locations of their files."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from ..base import Dataset, Task, UsageError
from . import manifest
from .info import DatasetInfo
from .label_file import SUFFIXES

# Every module holds INFO: DatasetInfo and read(root, **options) -> Dataset; DOWNLOADS if
# files can be downloaded, and default_root() if the files come with the package.
_MODULES = ("demo", "mtat", "dcase2017", "speech_commands", "urbansound8k", "esc50")


def names() -> tuple[str, ...]:
    """Names of the supported datasets."""
    return _MODULES


def module(name: str) -> ModuleType:
    """The module of a supported dataset.

    Raises
    ------
    UsageError
        If there is no dataset of this name.
    """
    if name not in _MODULES:
        raise UsageError(
            f"no dataset called '{name}'; expected one of {', '.join(_MODULES)}, a label file of "
            "your own clips (a CSV file with columns path and labels, for example; its name ends "
            f"in {', '.join(SUFFIXES)}), or a folder of audio files"
        )
    return importlib.import_module(f".{name}", __package__)


def info(name: str) -> DatasetInfo:
    """Description of a supported dataset."""
    found: DatasetInfo = module(name).INFO
    return found


def metric(name: str, task: Task) -> str:
    """Name of the metric that selects the best epoch, for any dataset."""
    if name in _MODULES:
        return info(name).metric
    return "accuracy" if task == "single-label" else "pr_auc"


def default_root(name: str, work: Path) -> Path:
    """Default folder of a supported dataset's files.

    It is part of this package for datasets that come with it; otherwise ``$FEATREG_DATA/NAME`` if
    the variable is set, and ``WORK/NAME/source`` if not.
    """
    found = module(name)
    if hasattr(found, "default_root"):
        root: Path = found.default_root()
        return root
    if folder := os.environ.get("FEATREG_DATA"):
        return Path(folder) / name
    return work / name / "source"


def read(name_or_manifest: str, root: Path | None, *, work: Path, **options: Any) -> Dataset:
    """A dataset, given by name, or a label file or folder of own clips; paths are absolute.

    Parameters
    ----------
    name_or_manifest
        One of `names`, or the path of a label file or of a folder; see ``manifest.py``.
    root
        Folder of the files; None for `default_root`, or for the label file's folder.
    work
        Working folder.
    options
        Further options of the dataset's ``read``; None and False count as not given.

    Raises
    ------
    UsageError
        If there is no such dataset, or it has no such option.
    FeatregError
        If the files are not those of the dataset.
    """
    given = {key: value for key, value in options.items() if value not in (None, False)}
    if _is_path(name_or_manifest):
        path = Path(name_or_manifest).absolute()
        name = path.name if path.is_dir() else path.stem
        if not re.fullmatch(r"\w[\w.-]*", name) or name in (*_MODULES, "runs"):
            raise UsageError(
                f"{path}: the name of the file or folder is the name of the dataset; expected only "
                f"letters, digits, '_', '-' and '.', and none of {', '.join(_MODULES)}, runs"
            )
        _check_options(name_or_manifest, manifest, given)
        return manifest.read(path, root and root.absolute(), **given)
    found = module(name_or_manifest)
    _check_options(name_or_manifest, found, given)
    folder = root or default_root(name_or_manifest, work)
    dataset: Dataset = found.read(folder.absolute(), **given)
    return dataset


def _is_path(name: str) -> bool:
    """Whether this is a label file or a folder; datasets have precedence over folders."""
    return name.lower().endswith(SUFFIXES) or (name not in _MODULES and Path(name).is_dir())


def _check_options(name: str, reader: ModuleType, given: dict[str, Any]) -> None:
    parameters = inspect.signature(reader.read).parameters.values()
    known = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in given:
        if option not in known:
            flags = ", ".join(f"--{each.replace('_', '-')}" for each in known) or "none"
            raise UsageError(
                f"--{option.replace('_', '-')} is not an option of {name}; its options: {flags}"
            )
