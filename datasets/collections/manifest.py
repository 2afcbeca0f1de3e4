"""The user's own clips: a label file with one row per clip, or a folder of audio.

==============  ==================================================================
column          meaning
==============  ==================================================================
``path``        the audio file; relative paths start at the label file's folder
``labels``      the classes of the clip, as ``a|b|c``
``split``       ``train``, ``valid`` or ``test``; assigned if empty or absent
``fold``        number of the fold in a cross-validation, 0 or more; none if empty
``clip_id``     a unique id; by default the path as written, followed by the start
``start_s``     start of the excerpt in the file, in seconds; 0 if empty
``duration_s``  duration of the excerpt, in seconds; to the end of the file if empty
any other       a class: 1 present, 0 absent, empty not annotated
==============  ==================================================================

Only ``path`` is required. The first four columns are also found by other usual names (see
``columns.py``), or named by the user. Other columns are ignored: all of them if there is a column
with labels, and otherwise those in which most filled cells are neither 0 nor 1 (or true and false).

An empty ``labels`` cell, like an empty class cell, means "not annotated"; only class columns can
express that a clip has none of the classes. If every annotated clip has exactly one of two or more
classes, the task is ``single-label``. Clips without any label belong to the training split.

``splits.py`` describes how missing splits are made, and ``class_folders.py`` the folders. The
``clips.csv`` of a working folder is itself a label file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..audio.files import other_normalization
from ..audio.suffixes import AUDIO_SUFFIXES
from ..base import SPLITS, Clip, Dataset, FeatregError, Task
from ..console import counted
from .class_folders import read_folder
from .clip_rows import ClipRow, read_clip_rows
from .columns import Columns, find_columns
from .completeness import few, names_in, say_all
from .label_file import read_label_file
from .labels import Labels, read_labels
from .splits import assign_splits


def read(
    path: Path,
    root: Path | None = None,
    *,
    task: Task | None = None,
    group: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    fold_column: str | None = None,
    label_separator: str | None = None,
    split_seed: int = 0,
    allow_missing: bool = False,
) -> Dataset:
    """The clips of a label file or a folder, in the order of the rows or files.

    Parameters
    ----------
    path
        A CSV, TSV or JSON lines file as described above, or a folder of audio; its stem is the
        name of the dataset.
    root
        Folder of the relative paths; the folder of `path` if None.
    task
        ``single-label`` if every clip has exactly one class; None to recognize it.
    group
        Column whose equal values must not occur in two splits or folds.
    path_column, label_column, split_column, fold_column
        Columns with these contents; None to find them by their usual names.
    label_separator
        Text between the classes in a cell; empty if every cell is one class. If None, the first
        of ``|``, ``;`` and ``,`` that occurs in the column.
    split_seed
        Seed of the splits that are made.
    allow_missing
        Continue without the clips whose files are missing, with splits without clips, and with
        clips without labels in the validation and test splits; `Dataset.notes` states all three.

    Raises
    ------
    FeatregError
        If a cell is invalid, an id occurs twice, a file is missing, a split has no clips, or a
        clip without labels is not in the training split.
    UsageError
        If the columns are not those described above.
    """
    is_folder = path.is_dir()
    table = read_folder(path) if is_folder else read_label_file(path)
    name, folder = (path.name, path) if is_folder else (path.stem, path.parent)
    chosen = {"path": path_column, "labels": label_column, "split": split_column}
    columns = find_columns(path, table, {**chosen, "fold": fold_column, "group": group})
    rows = read_clip_rows(path, table, columns)
    labels = read_labels(path, table, columns, label_separator, task)
    splits, made = assign_splits(path, rows, columns, labels, split_seed)

    clips, missing = [], []
    folders = _Folders(root or folder)
    for row, split, label, mask in zip(rows, splits, labels.label, labels.mask, strict=True):
        file = folders.find(row)
        if file is None:
            place = folders.root / row.file
            missing.append(f"{place} in line {row.line}{other_normalization(place)}")
            continue
        clips.append(
            Clip(row.clip_id, file, split, label, mask, row.start_s, row.duration_s, row.fold)
        )

    say_all(f"{name}: not found", missing)
    problems = (
        [f"{counted(len(missing), 'audio file')} not found ({few(missing)})"] if missing else []
    )
    problems += _unlabelled(clips, rows) if labels.mask.any() else []
    problems += _empty_splits(clips) if labels.mask.any() or not clips else []
    if problems and not (clips and allow_missing):
        remedy = "; to continue nevertheless, use --allow-missing" if clips else ""
        raise FeatregError(f"{path}: {'; '.join(problems)}{remedy}")
    remarks = [*problems, *_lacking(labels, clips), *_unused(columns)]
    notes = tuple(f"{name}: {remark}" for remark in remarks)
    understood = tuple(
        f"{name}: {line}"
        for line in (
            f"{counted(len(rows), 'clip')} ({table.form}{'' if is_folder else _roles(columns)})",
            _about(labels) + ("" if is_folder else f" ({labels.form})"),
            f"splits: {made}; ignored columns: {', '.join(columns.ignored) or 'none'}",
        )
    )
    return Dataset(
        name, labels.classes, tuple(clips), labels.task, notes=notes, understood=understood
    )


class _Folders:
    """Looks for files below `root`; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, frozenset[str]] = {}
        self._stems: dict[Path, dict[str, list[str]]] = {}

    def find(self, row: ClipRow) -> Path | None:
        """The clip's file, None if it does not exist.

        Its name may begin or end with a space, contain backslashes, or lack its suffix. On disk,
        it may have the encoding Windows-1252.
        """
        names = [row.written_file, row.file, row.file.replace("\\", "/")]
        with suppress(UnicodeEncodeError):
            names.append(os.fsdecode(row.file.encode("cp1252")))
        for name in dict.fromkeys(names):
            file = self.root / name
            folder = file.parent
            if folder not in self._names:
                self._names[folder] = names_in(folder)
            if file.name in self._names[folder]:
                return file
            same_stem = self._by_stem(folder).get(file.name, [])
            if len(same_stem) == 1:
                return folder / same_stem[0]
        return None

    def _by_stem(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for name in self._names[folder]:
                stem, dot, suffix = name.rpartition(".")
                if f"{dot}{suffix}".lower() in AUDIO_SUFFIXES:
                    stems.setdefault(stem, []).append(name)
            self._stems[folder] = stems
        return self._stems[folder]


def _roles(columns: Columns) -> str:
    """The columns that are used, except those of the labels."""
    roles = [
        f"'{name}'" if name == role else f"{role} in '{name}'"
        for role, name in columns.names.items()
        if role != "labels"
    ]
    return f"; columns {', '.join(roles)}"


def _about(labels: Labels) -> str:
    """Task and classes."""
    if not labels.classes:
        return "no task, as there are no labels"
    count = len(labels.classes)
    what = f"{count:,} {'class' if count == 1 else 'classes'}: {few(labels.classes)}"
    return f"{labels.task}, {what}"


def _unused(columns: Columns) -> list[str]:
    """A remark if there are no labels although there are columns without a known meaning."""
    if columns.classes or "labels" in columns.names or not columns.ignored:
        return []
    ignored = few(columns.ignored)
    return [f"no column with labels found ({ignored} ignored); choose it with --label-column"]


def _unlabelled(clips: Sequence[Clip], rows: Sequence[ClipRow]) -> list[str]:
    """Clips without labels outside of the training split, in a sentence."""
    line_of = {row.clip_id: row.line for row in rows}
    named = [
        f"{clip.clip_id} in {clip.split}, line {line_of[clip.clip_id]}"
        for clip in clips
        if clip.split != "train" and not clip.label_mask.any()
    ]
    if not named:
        return []
    clips_named = counted(len(named), "clip")
    return [f"{clips_named} without labels, expected in train only ({few(named)})"]


def _empty_splits(clips: Sequence[Clip]) -> list[str]:
    present = {clip.split for clip in clips}
    empty = " and ".join(split for split in SPLITS if split not in present)
    return [f"no clips in {empty} (add a column 'split' or more clips)"] if empty else []


def _lacking(labels: Labels, clips: Sequence[Clip]) -> list[str]:
    """Classes that cannot be both learned and tested, in a sentence."""
    present: dict[str, npt.NDArray[np.uint8]] = {}
    for clip in clips:
        present[clip.split] = np.maximum(clip.label, present.get(clip.split, clip.label))
    lacking = []
    for index, name in enumerate(labels.classes):
        where = [split for split in SPLITS if split in present and present[split][index]]
        if "train" not in where or len(where) == 1:
            lacking.append(
                f"'{name}' in {' and '.join(where)} only" if where else f"'{name}' nowhere"
            )
    if not lacking:
        return []
    counted_classes = f"{len(lacking):,} {'class' if len(lacking) == 1 else 'classes'}"
    return [f"{counted_classes} without positive clips in train and another split ({few(lacking)})"]
