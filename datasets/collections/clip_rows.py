"""The clips of a label file: one row each, with all cells except the labels checked."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .columns import FOLD, Columns
from .csv_rows import damaged
from .label_file import LabelTable

# A carriage return would end a line of clips.csv, and a null byte a string in a shard.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One clip of the file; absent cells are empty.

    `file` is the path without spaces at its ends, `written_file` is as in the file.
    """

    line: int
    clip_id: str
    file: str
    written_file: str
    start_s: float
    duration_s: float | None
    split: str
    fold: int | None
    group: str


def read_clip_rows(path: Path, table: LabelTable, columns: Columns) -> list[ClipRow]:
    """The clips, in the order of the rows.

    Raises
    ------
    FeatregError
        If a cell is invalid or an id occurs twice.
    """
    index = {role: table.header.index(name) for role, name in columns.names.items()}
    rows: list[ClipRow] = []
    line_of: dict[str, int] = {}
    for line, cells in table.rows:

        def cell(role: str, cells: list[str] = cells) -> str:
            return cells[index[role]].strip() if role in index else ""

        row = _read_row(path, line, cell, columns, cells[index["path"]])
        if row.clip_id in line_of:
            # Without a column for it, the id is the path.
            name = columns.names.get("clip_id", columns.names["path"])
            raise damaged(
                path,
                line,
                name,
                "a unique id",
                f"'{row.clip_id}', which is also in line {line_of[row.clip_id]}; write all classes "
                "of a clip into one row",
            )
        line_of[row.clip_id] = line
        rows.append(row)
    return rows


def _read_row(
    path: Path, line: int, cell: Callable[[str], str], columns: Columns, written: str
) -> ClipRow:
    start, duration = (_seconds(path, line, name, cell(name)) for name in ("start_s", "duration_s"))
    if duration == 0:
        raise damaged(path, line, "duration_s", "more than 0 s", "0")
    file = cell("path")
    if not file:
        raise damaged(path, line, columns.names["path"], "an audio file", "an empty cell")
    clip_id = cell("clip_id") or "@".join(filter(None, (file, cell("start_s"))))
    if CONTROL.search(clip_id):
        raise damaged(
            path, line, "clip_id", "no line breaks or other control characters", repr(clip_id)
        )
    fold = FOLD.fullmatch(cell("fold"))
    if cell("fold") and fold is None:
        name = columns.names["fold"]
        raise damaged(path, line, name, "a whole number, 0 or more", repr(cell("fold")))
    return ClipRow(
        line,
        clip_id,
        file,
        written,
        start or 0.0,
        duration,
        cell("split"),
        int(fold[1]) if fold else None,
        cell("group"),
    )


def _seconds(path: Path, line: int, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise damaged(path, line, name, "seconds, 0 or more", repr(cell))
    return seconds
