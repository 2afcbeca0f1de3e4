"""The labels in a label file: classes, label vectors, masks, and the task they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..base import FeatregError, Task, UsageError
from .clip_rows import CONTROL
from .columns import BINARY, USUAL_NAMES, Columns, cells_of
from .csv_rows import damaged
from .label_file import LabelTable

SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of all clips.

    Attributes
    ----------
    classes
        Class names in the order of the label vectors.
    label, mask
        Shape (clips, classes), uint8; see `Clip`.
    task
        ``single-label`` if every annotated clip has exactly one of two or more classes.
    form
        How the labels were read, in words.
    """

    classes: tuple[str, ...]
    label: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    task: Task
    form: str

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """Shape (clips,): whether any class of the clip was annotated."""
        return np.asarray(self.mask.any(axis=1))


def read_labels(
    path: Path, table: LabelTable, columns: Columns, separator: str | None, task: Task | None
) -> Labels:
    """The labels of all clips, in the order of the rows.

    Parameters
    ----------
    path
        The file, for messages.
    table, columns
        Its contents, and the meaning of its columns.
    separator
        Text between the classes in a cell; empty if a cell is one class. If None, the first of
        ``|``, ``;`` and ``,`` that occurs in the column.
    task
        The task; None to recognize it.

    Raises
    ------
    FeatregError
        If a cell is invalid, or a clip does not have exactly one class as `task` requires.
    UsageError
        If a class has the name of a column, or contains control characters.
    """
    if "labels" in columns.names:
        labels = _from_list(path, table, columns.names["labels"], separator)
    elif columns.classes:
        labels = _from_columns(path, table, columns.classes)
    else:
        nothing = np.zeros((len(table.rows), 0), np.uint8)
        labels = Labels((), nothing, nothing, "multi-label", "no column with labels")
    if bad := [name for name in labels.classes if CONTROL.search(name)]:
        raise UsageError(f"{path}: expected no control characters in classes, found {bad[0]!r}")
    if task is None:
        task = "single-label" if _is_single(labels) else "multi-label"
    return _exclusive(path, table, labels) if task == "single-label" else labels


def _from_list(path: Path, table: LabelTable, column: str, separator: str | None) -> Labels:
    cells = cells_of(table, column)
    if separator is None:
        separator = next((mark for mark in SEPARATORS if any(mark in cell for cell in cells)), "")
    listed = [_names(cell, separator) for cell in cells]
    classes = sorted({name for names in listed for name in names})
    for name in classes:
        if name in USUAL_NAMES:
            raise UsageError(f"{path}: class '{name}' has the name of a column; rename the class")
    _refuse_mixed(path, table, column, listed, {*classes})
    index = {name: k for k, name in enumerate(classes)}
    label = np.zeros((len(cells), len(classes)), np.uint8)
    for row, names in zip(label, listed, strict=True):
        row[[index[name] for name in names]] = 1
    mask = np.repeat(label.any(axis=1, keepdims=True), len(classes), axis=1).astype(np.uint8)
    form = f"labels in '{column}'" + (f", separated by '{separator}'" if separator else "")
    return Labels(tuple(classes), label, mask, "multi-label", form)


def _names(cell: str, separator: str) -> list[str]:
    parts = cell.split(separator) if separator else [cell]
    return [name for part in parts if (name := part.strip())]


def _refuse_mixed(
    path: Path, table: LabelTable, column: str, listed: Sequence[list[str]], classes: set[str]
) -> None:
    """Refuse a name that consists of other classes with another separator between them."""
    for (line, _), names in zip(table.rows, listed, strict=True):
        for name in names:
            for mark in SEPARATORS:
                parts = _names(name, mark)
                if len(parts) > 1 and classes.issuperset(parts):
                    raise damaged(
                        path,
                        line,
                        column,
                        "one separator between classes in the whole column",
                        f"{name!r}, whose parts are classes in other rows; if it is one class, "
                        "rename it",
                    )


def _from_columns(path: Path, table: LabelTable, classes: tuple[str, ...]) -> Labels:
    label = np.zeros((len(table.rows), len(classes)), np.uint8)
    mask = np.zeros_like(label)
    for k, name in enumerate(classes):
        cells = cells_of(table, name)
        for (line, _), cell in zip(table.rows, cells, strict=True):
            if cell and cell.lower() not in BINARY:
                raise damaged(
                    path,
                    line,
                    name,
                    "0, 1, true, false or an empty cell, as in most rows of this column",
                    repr(cell),
                )
        label[:, k] = [BINARY.get(cell.lower(), 0) for cell in cells]
        mask[:, k] = [cell != "" for cell in cells]
    return Labels(classes, label, mask, "multi-label", "one column per class")


def _is_single(labels: Labels) -> bool:
    annotated = labels.annotated
    return (
        len(labels.classes) > 1
        and bool(annotated.any())
        and bool(labels.mask[annotated].all())
        and bool((labels.label[annotated].sum(axis=1) == 1).all())
    )


def _exclusive(path: Path, table: LabelTable, labels: Labels) -> Labels:
    """Labels of clips with exactly one class each: all other classes are absent."""
    annotated = labels.annotated
    counts = labels.label.sum(axis=1)
    wrong = np.flatnonzero(annotated & (counts != 1))
    if len(wrong):
        raise FeatregError(
            f"{path}, line {table.rows[wrong[0]][0]}: expected exactly one class "
            f"(--task single-label), found {counts[wrong[0]]}"
        )
    mask = np.repeat(annotated[:, None], len(labels.classes), axis=1).astype(np.uint8)
    return replace(labels, mask=mask, task="single-label")
