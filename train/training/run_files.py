"""Files of a run folder: each is written with a checksum and read against it.

``config.json`` and ``report.json`` hold the SHA-256 of their own values. ``report.json``
also holds the SHA-256 of every other file of the finished run. (``state.pt`` and
``model.safetensors`` hold their own, see `checkpoint` and `model_file`.) A file that is
truncated, edited, or has one flipped bit is therefore refused by name, whichever command
reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.hdf5 import atomic_path

FORMAT, VERSION = "featreg-run", 2

OUTPUTS = ("metrics.csv", "predictions.csv", "embeddings.npz", "scaling.npz", "model.safetensors")
"""Files whose checksums ``report.json`` holds, as far as the run has them."""

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


def damaged(path: Path, what: str) -> FeatregError:
    """The error for a file that cannot be used; says how to go on.

    Parameters
    ----------
    path
        The file, in a run folder.
    what
        What is wrong with it.
    """
    return FeatregError(
        f"{path}: {what}; restore the file from a copy, or train this run again with --fresh"
    )


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

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
    """The contents of a file, if they are what was written.

    Raises
    ------
    FeatregError
        If the file is missing or its SHA-256 is another.
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
    """What `write_json` wrote.

    Raises
    ------
    FeatregError
        If the file is missing, damaged, incomplete, or of another version.
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
            "another version of featreg wrote this run; train it again with --fresh"
        )
    if sha256 != _checksum(values):
        raise damaged(path, "damaged or changed since it was written (wrong checksum)")
    for key, expected in _KEYS.get(path.name, {}).items():
        if not isinstance(_at(values, key), expected):
            raise damaged(path, f"{key} is missing or has the wrong type")
    for metric in [*values.get("test", {}).values(), *values.get("valid", {}).values()]:
        if not (isinstance(metric, _NUMBER) and 0 <= metric <= 1):
            raise damaged(path, f"expected metrics from 0 to 1, found {metric}")
    return values


def _at(values: Any, key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, whatever their order and white space."""
    plain = json.loads(json.dumps(values))  # tuples are lists, keys are strings
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
