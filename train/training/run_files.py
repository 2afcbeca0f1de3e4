"""Files of a run folder, written with a checksum that is verified when they are read.

``config.json`` and ``report.json`` hold the SHA-256 of their own values. ``report.json``
also holds the SHA-256 of every other file of the finished run. (``state.pt`` and
``model.safetensors`` hold their own, see `checkpoint` and `model_file`.) Every command that
reads a truncated, edited or corrupted file therefore fails with an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.hdf5 import atomic_path

FORMAT, VERSION = "featreg-run", 2

OUTPUTS = (
    "metrics.csv",
    "predictions.csv",
    "embeddings.npz",
    "scaling.npz",
    "model.safetensors",
    "encoder.safetensors",
)
"""Files whose checksums are in ``report.json``, if the run has them."""

_NUMBER = (int, float)
_KEYS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "config.json": {
        "config.recipe": dict,
        "fingerprint": str,
        "data.fingerprint": str,
        "data.task": str,
        "data.clips": dict,
        "data.classes": list,
        "data.notes": list,
        "parameters.inference": int,
        "command": str,
        "started": str,
        "versions": dict,
        "machine.device": str,
    },
    "report.json": {
        "best_epoch": int,
        "valid": dict,
        "test": dict,
        "intervals": dict,
        "classes": list,
        "undefined": dict,
        "seconds": _NUMBER,
        "files": dict,
    },
}

# Of ``report.json``, depending on the task.
_OPTIONAL: Mapping[str, type] = {"confusion": list, "thresholds": dict}


def damaged(path: Path, problem: str) -> FeatregError:
    """Return the error for a file of a run folder that cannot be used.

    Parameters
    ----------
    path
        The file.
    problem
        Description of the problem.
    """
    return FeatregError(
        f"{path}: {problem}; restore the file from a copy, or train this run again with --fresh"
    )


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises
    ------
    FeatregError
        If it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from None


def read_verified(path: Path, sha256: str | None) -> bytes:
    """Read a file and verify its SHA-256.

    Raises
    ------
    FeatregError
        If the file is missing, or its SHA-256 differs from `sha256`.
    """
    contents = read_bytes(path)
    if hashlib.sha256(contents).hexdigest() != sha256:
        raise damaged(path, "damaged or changed since it was written (wrong checksum)")
    return contents


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write ``config.json`` or ``report.json`` with its checksum, atomically."""
    values = {"format": FORMAT, "version": VERSION, **values}
    if path.name == "report.json":
        values["files"] = {
            name: hashlib.sha256(read_bytes(path.with_name(name))).hexdigest()
            for name in OUTPUTS
            if path.with_name(name).is_file()
        }
    values.pop("sha256", None)
    text = json.dumps({**values, "sha256": _checksum(values)}, indent=2)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read the values that `write_json` wrote.

    Raises
    ------
    FeatregError
        If the file is missing, damaged, incomplete, or was written by another version.
    """
    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        raise damaged(path, "not valid JSON") from None
    if not isinstance(values, dict):
        raise damaged(path, f"expected a JSON object, found {type(values).__name__}")
    found, sha256 = (values.get("format"), values.get("version")), values.pop("sha256", None)
    if found != (FORMAT, VERSION) and sha256 in (None, _checksum(values)):
        raise FeatregError(
            f"{path}: expected {FORMAT} version {VERSION}, found {found[0]} version {found[1]}; "
            "the run was written by another version of featreg; train it again with --fresh"
        )
    if sha256 != _checksum(values):
        raise damaged(path, "damaged or changed since it was written (wrong checksum)")
    for key, expected in _KEYS.get(path.name, {}).items():
        if not isinstance(_at(values, key), expected):
            raise damaged(path, f"{key} is missing or has the wrong type")
    for key, kind in _OPTIONAL.items():
        if key in values and not isinstance(values[key], kind):
            raise damaged(path, f"{key} has the wrong type")
    for name, metric in [*values.get("test", {}).items(), *values.get("valid", {}).items()]:
        highest = math.inf if name == "reg_loss" else 1
        if not (isinstance(metric, _NUMBER) and 0 <= metric <= highest):
            raise damaged(path, f"expected metrics from 0 to 1, found {metric}")
    return values


def _at(values: Any, key: str) -> Any:
    """Return the value at a dotted key, or None if there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, independent of their order and white space."""
    plain = json.loads(json.dumps(values))  # tuples become lists, keys become strings
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
