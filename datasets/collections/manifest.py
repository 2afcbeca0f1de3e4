"""The user's own clips: a CSV file with one row per clip.

==============  ==================================================================
column          meaning
==============  ==================================================================
``path``        the audio file; relative paths start at the CSV file's folder
``clip_id``     a unique id; by default the path as written, followed by the start
``split``       ``train``, ``valid`` or ``test``; assigned if empty or absent
``fold``        number of the fold in a cross-validation, 0 or more; none if empty
``start_s``     start of the excerpt in the file, in seconds; 0 if empty
``duration_s``  duration of the excerpt, in seconds; to the end of the file if empty
``labels``      the classes of the clip, as ``a|b|c``
any other       a class: 1 present, 0 absent, empty not annotated
==============  ==================================================================

Only ``path`` and labels are required; the labels have one of the two forms. Other columns are
ignored: all of them if there is a column ``labels``, and otherwise those in which most filled cells
are neither 0 nor 1. An empty ``labels`` cell, like an empty class cell, means "not annotated"; only
class columns can express that a clip has none of the classes. With ``--task single-label`` every
annotated clip has exactly one class. Clips with the same value in the column given by ``--group``
(artist or song, for example) stay in the same split. The ``clips.csv`` of a working folder
is itself such a file.

Missing splits are derived from a hash of the group, or of the clip if there is no group:
about 80 % train, 10 % valid and 10 % test. They do not depend on the order of the rows and
do not change when rows are added. All excerpts of one file form a group.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..audio.files import other_normalization
from ..base import SPLITS, Clip, Dataset, FeatregError, Split, Task, UsageError, label_vector
from ..console import counted
from .completeness import few, names_in, say_all
from .csv_rows import Row, damaged, read_rows

COLUMNS = ("path", "clip_id", "split", "fold", "start_s", "duration_s", "labels")

# A carriage return would end a line of clips.csv, and a null byte a string in a shard.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_Label = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]  # vector and mask


@dataclass(frozen=True, slots=True)
class _Row:
    """One clip of the file; absent cells are empty.

    `cells` are stripped of spaces at their ends; `written_path` is the path as in the file.
    """

    line: int
    cells: defaultdict[str, str]
    written_path: str
    clip_id: str
    start_s: float
    duration_s: float | None
    fold: int | None


def read(
    path: Path,
    root: Path | None = None,
    *,
    task: Task = "multi-label",
    group: str | None = None,
    allow_missing: bool = False,
) -> Dataset:
    """The clips of a CSV file, in the order of its rows.

    Parameters
    ----------
    path
        File with the columns described above; its stem is the name of the dataset.
    root
        Folder of the relative paths; the folder of `path` if None.
    task
        ``single-label`` if every clip has exactly one class.
    group
        Column whose equal values must not occur in two splits.
    allow_missing
        Continue without the clips whose files are missing, and with classes or splits that have
        too few clips; `Dataset.notes` states both.

    Raises
    ------
    FeatregError
        If a cell is invalid, an id occurs twice, a file is missing, there is no class, or a class
        cannot be both learned and tested.
    UsageError
        If the columns are not those described above.
    """
    lines = read_rows(path, ",")
    header = [name.strip() for name in next(lines, (1, []))[1]]
    others = _other_columns(path, header, group)
    rows = _read_clips(path, header, lines)
    columns = _class_columns(path, header, others, rows)
    splits = _assign_splits(path, rows, group)
    if columns:
        classes, labels = columns, [_from_columns(path, row, columns) for row in rows]
    else:
        classes = _listed_classes(path, rows)
        if rows and not classes:
            raise FeatregError(
                f"{path}: no class in any row; expected the classes of each clip in the column "
                "'labels' (a|b|c), found only empty cells"
            )
        labels = [_from_list(row, classes) for row in rows]
    if bad := [name for name in classes if _CONTROL.search(name)]:
        raise UsageError(f"{path}: expected no control characters in classes, found {bad[0]!r}")
    if task == "single-label":
        labels = [_exclusive(path, row, label) for row, label in zip(rows, labels, strict=True)]

    clips, missing = [], []
    listings: dict[Path, frozenset[str]] = {}
    for row, split, (label, mask) in zip(rows, splits, labels, strict=True):
        file = _find(root or path.parent, row, listings)
        if file is None:
            place = (root or path.parent) / row.cells["path"]
            missing.append(f"{place} in line {row.line}{other_normalization(place)}")
            continue
        clips.append(
            Clip(row.clip_id, file, split, label, mask, row.start_s, row.duration_s, row.fold)
        )

    say_all(f"{path.stem}: not found", missing)
    problems = (
        [f"{counted(len(missing), 'audio file')} not found ({few(missing)})"] if missing else []
    )
    problems += _too_few(classes, clips)
    if problems and not (clips and allow_missing):
        remedy = "; to continue without them, use --allow-missing" if clips else ""
        raise FeatregError(f"{path}: {'; '.join(problems)}{remedy}")
    notes = tuple(f"{path.stem}: {problem}" for problem in problems)
    ignored = [name for name in others if name not in columns]
    understood = (f"{path.stem}: ignored columns: {', '.join(ignored)}",) if ignored else ()
    return Dataset(path.stem, classes, tuple(clips), task, notes=notes, understood=understood)


def _find(root: Path, row: _Row, listings: dict[Path, frozenset[str]]) -> Path | None:
    """The row's file, whose name may begin or end with a space; None if it does not exist."""
    for name in dict.fromkeys((row.written_path, row.cells["path"])):
        file = root / name
        if file.parent not in listings:
            listings[file.parent] = names_in(file.parent)
        if file.name in listings[file.parent]:
            return file
    return None


def _read_clips(path: Path, header: Sequence[str], lines: Iterable[Row]) -> list[_Row]:
    rows: list[_Row] = []
    line_of: dict[str, int] = {}
    for line, values in lines:
        cells = defaultdict(str, zip(header, map(str.strip, values), strict=True))
        start, duration = (_seconds(path, line, name, cells) for name in ("start_s", "duration_s"))
        if duration == 0:
            raise damaged(path, line, "duration_s", "more than 0 s", "0")
        clip_id = cells["clip_id"] or "@".join(filter(None, (cells["path"], cells["start_s"])))
        if not cells["path"]:
            raise damaged(path, line, "path", "an audio file", "an empty cell")
        if _CONTROL.search(clip_id):
            raise damaged(
                path, line, "clip_id", "no line breaks or other control characters", repr(clip_id)
            )
        if clip_id in line_of:
            raise damaged(
                path,
                line,
                "clip_id",
                "a unique id",
                f"'{clip_id}', which is also in line {line_of[clip_id]}",
            )
        line_of[clip_id] = line
        if cells["fold"] and not cells["fold"].isdecimal():
            raise damaged(path, line, "fold", "a whole number, 0 or more", repr(cells["fold"]))
        fold = int(cells["fold"]) if cells["fold"] else None
        written = values[header.index("path")]
        rows.append(_Row(line, cells, written, clip_id, start or 0.0, duration, fold))
    return rows


def _seconds(path: Path, line: int, name: str, cells: defaultdict[str, str]) -> float | None:
    cell = cells[name]
    if not cell:
        return None
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise damaged(path, line, name, "seconds, 0 or more", repr(cell))
    return seconds


def _other_columns(path: Path, header: Sequence[str], group: str | None) -> list[str]:
    """Names of the columns without a fixed meaning; some of them may be classes."""
    found = ", ".join(header) or "nothing"
    if "path" not in header:
        raise UsageError(f"{path}: expected comma-separated columns, one 'path'; found {found}")
    for name in (*header, *COLUMNS):
        if not name or header.count(name) > 1:
            raise UsageError(f"{path}: expected a unique name for every column; found {found}")
    if group is not None and group not in header:
        raise UsageError(f"{path}: --group {group}: column not found; columns are {found}")
    return [name for name in header if name not in (*COLUMNS, group)]


def _class_columns(
    path: Path, header: Sequence[str], others: Sequence[str], rows: Sequence[_Row]
) -> tuple[str, ...]:
    """Names of the class columns; empty if the labels are in one column."""
    if "labels" in header:
        return ()
    columns = tuple(name for name in others if _is_class(row.cells[name] for row in rows))
    if not columns:
        raise UsageError(
            f"{path}: no labels; expected a column 'labels' (a|b|c), or a column for each class "
            f"(0, 1 or empty); found {', '.join(header)}"
        )
    return columns


def _is_class(cells: Iterable[str]) -> bool:
    """Whether a column is a class, possibly with a wrong value: at least half are 0 or 1."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and 2 * sum(cell in ("0", "1") for cell in filled) >= len(filled)


def _assign_splits(path: Path, rows: Sequence[_Row], group: str | None) -> list[Split]:
    """Split of every row: the given one, or an assigned one."""
    together: defaultdict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in rows:
        together[_group_of(row, group)].append(row)
    made: dict[tuple[str, str], str] = {}
    for key, members in together.items():
        written = [row.cells["split"] for row in members]
        distinct = sorted({*written} - {""})
        column, value = key
        # The user may distribute the excerpts of one file over splits, but not those of a group.
        if len(distinct) > 1 and (column != "path" or "" in written):
            raise FeatregError(
                f"{path}: the clips with {column} '{value}' are in {' and '.join(distinct)}; "
                "put them into one split"
            )
        made[key] = distinct[0] if distinct else _hashed_split(key, members)
    splits: list[Split] = []
    for row in rows:
        split = row.cells["split"] or made[_group_of(row, group)]
        if split not in SPLITS:
            raise damaged(path, row.line, "split", ", ".join(SPLITS), repr(split))
        splits.append(split)
    return splits


def _group_of(row: _Row, group: str | None) -> tuple[str, str]:
    """Column and value shared by all rows of this row's group."""
    if group is not None and row.cells[group]:
        return group, row.cells[group]
    return "path", row.cells["path"]


def _hashed_split(key: tuple[str, str], members: Sequence[_Row]) -> Split:
    """Split derived from the name of the group, or from a clip id, alone."""
    column, value = key
    name = min(row.clip_id for row in members) if column == "path" else value
    position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "train" if position < 0.8 else "valid" if position < 0.9 else "test"


def _listed_classes(path: Path, rows: Sequence[_Row]) -> tuple[str, ...]:
    classes = sorted({name for row in rows for name in _listed(row)})
    for name in classes:
        if name in COLUMNS:
            raise UsageError(f"{path}: class '{name}' has the name of a column; rename the class")
    return tuple(classes)


def _listed(row: _Row) -> list[str]:
    return [name for cell in row.cells["labels"].split("|") if (name := cell.strip())]


def _from_list(row: _Row, classes: Sequence[str]) -> _Label:
    label = label_vector(classes, _listed(row))
    return label, np.full_like(label, bool(row.cells["labels"]))


def _from_columns(path: Path, row: _Row, classes: Sequence[str]) -> _Label:
    for name in classes:
        if row.cells[name] not in ("0", "1", ""):
            raise damaged(
                path,
                row.line,
                name,
                f"0, 1 or an empty cell, as in every column except {', '.join(COLUMNS)} and the "
                "one given by --group",
                repr(row.cells[name]),
            )
    label = np.array([row.cells[name] == "1" for name in classes], np.uint8)
    return label, np.array([row.cells[name] != "" for name in classes], np.uint8)


def _exclusive(path: Path, row: _Row, annotation: _Label) -> _Label:
    """Label and mask of a clip with exactly one class: all other classes are absent."""
    label, mask = annotation
    if not mask.any():
        return annotation
    if label.sum() != 1:
        raise FeatregError(
            f"{path}, line {row.line}: expected exactly one class (--task single-label), "
            f"found {label.sum()}"
        )
    return label, np.ones_like(mask)


def _too_few(classes: Sequence[str], clips: Sequence[Clip]) -> list[str]:
    """Splits without clips, and classes that cannot be both learned and tested, in sentences."""
    present: dict[str, npt.NDArray[np.uint8]] = {}
    for clip in clips:
        present[clip.split] = np.maximum(clip.label, present.get(clip.split, clip.label))
    empty = [split for split in SPLITS if split not in present]
    lacking = []
    for index, name in enumerate(classes):
        where = [split for split in SPLITS if split in present and present[split][index]]
        if "train" not in where or len(where) == 1:
            lacking.append(
                f"'{name}' in {' and '.join(where)} only" if where else f"'{name}' nowhere"
            )
    sentences = []
    if empty:
        named = " and ".join(empty)
        sentences.append(f"no clips in {named} (add a column 'split' or more clips)")
    if lacking:
        sentences.append(
            f"{len(lacking):,} {'class' if len(lacking) == 1 else 'classes'} without positive "
            f"clips in train and another split ({few(lacking)})"
        )
    return sentences
