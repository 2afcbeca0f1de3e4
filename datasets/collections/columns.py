"""The meaning of the columns of a label file: by their usual names, or as the user states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base import UsageError
from .completeness import few
from .label_file import LabelTable

# Names in lower case, with underscores; the first one is the documented name and goes first.
USUAL_NAMES = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "fname"),
        *("audio", "audio_file", "audio_path", "audio_filename", "wav"),
    ),
    "labels": ("labels", "label", "class", "classes", "category", "categories", "tag", "tags"),
    "split": ("split", "subset", "partition", "set"),
    "fold": ("fold", "folds"),
    "clip_id": ("clip_id",),
    "start_s": ("start_s",),
    "duration_s": ("duration_s",),
}

# Columns of the clip list of a working folder, whose other columns are classes of any name.
_CLIP_LIST = {"clip_id", "path", "split", "start_s", "duration_s"}

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
    # Their meaning depends on the other names in the file; see splits.py.
    **dict.fromkeys(("dev", "development"), "dev"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),
}
FOLD = re.compile(r"(?:fold)?[ _-]?(\d+)(?:\.0)?", re.IGNORECASE)

BINARY = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a label file.

    Attributes
    ----------
    names
        Column of each role in `USUAL_NAMES` that has one, and of ``group``.
    classes
        Columns of one class each; empty if the labels are in one column, or there are none.
    ignored
        Columns that are not used.
    """

    names: Mapping[str, str]
    classes: tuple[str, ...]
    ignored: tuple[str, ...]


def find_columns(path: Path, table: LabelTable, chosen: Mapping[str, str | None]) -> Columns:
    """The role of every column.

    Parameters
    ----------
    path
        The file, for messages.
    table
        Its contents.
    chosen
        Column given by the user for a role: ``path``, ``labels``, ``split``, ``fold`` or ``group``.

    Raises
    ------
    UsageError
        If there is no path column, a column is missing, two columns have the same name, or two
        columns have usual names of one role.
    """
    found = ", ".join(table.header) or "nothing"
    if twice := [name for name in table.header if table.header.count(name) > 1]:
        raise UsageError(
            f"{path}: expected a unique name for every column, found {twice[0]!r} twice in: {found}"
        )
    names = {}
    for role in (*USUAL_NAMES, "group"):
        if (column := chosen.get(role)) is None:
            column = _usual(path, table, role, {*filter(None, chosen.values())})
        elif column not in table.header:
            raise UsageError(
                f"{path}: {_option(role)} {column}: column not found; columns are: {found}"
            )
        if column is not None:
            names[role] = column
    if "path" not in names:
        raise UsageError(_no_path(path, table, found))
    others = [name for name in table.header if name not in names.values()]
    classes: tuple[str, ...] = ()
    if "labels" not in names:
        classes = tuple(name for name in others if _is_class(cells_of(table, name)))
    return Columns(names, classes, tuple(name for name in others if name not in classes))


def cells_of(table: LabelTable, name: str) -> list[str]:
    """The cells of a column, without spaces at their ends."""
    index = table.header.index(name)
    return [cells[index].strip() for _, cells in table.rows]


def _option(role: str) -> str:
    return "--group" if role == "group" else f"--{role.removesuffix('s')}-column"


def _usual(path: Path, table: LabelTable, role: str, taken: Iterable[str]) -> str | None:
    """The column with a usual name of the role, None if there is none."""
    names: Sequence[str] = USUAL_NAMES.get(role, ())
    candidates = [name for name in table.header if name not in taken and _plain(name) in names]
    if role in candidates:
        return role
    if table.header and {*table.header} >= _CLIP_LIST:
        return None
    # These names have other meanings, too.
    if role == "split":
        candidates = [
            name
            for name in candidates
            if {cell.lower() for cell in cells_of(table, name)} <= {*SPLIT_NAMES, ""}
        ]
    if role == "fold":
        candidates = [
            name
            for name in candidates
            if all(not cell or FOLD.fullmatch(cell) for cell in cells_of(table, name))
        ]
    if len(candidates) > 1:
        raise UsageError(
            f"{path}: expected one column with the {role}, found {' and '.join(candidates)}; "
            f"choose one with {_option(role)}"
        )
    return candidates[0] if candidates else None


def _plain(name: str) -> str:
    return re.sub(r"[ -]+", "_", name.lower())


def _no_path(path: Path, table: LabelTable, found: str) -> str:
    start = "; ".join(", ".join(cells) for _, cells in table.rows[:2])
    return (
        f"{path}: no column with audio files found. Columns in the first line are: {found}"
        f"{f'; the next rows are: {start[:200]}' if start else ''}. The first line must name the "
        f"columns; expected one of {few(USUAL_NAMES['path'])}, or choose one with --path-column"
    )


def _is_class(cells: Iterable[str]) -> bool:
    """Whether a column is a class, possibly with a wrong value: at least half are 0 or 1."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and 2 * sum(cell.lower() in BINARY for cell in filled) >= len(filled)
