"""The split of every clip of a label file: as written, by its folds, or stratified."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..base import SPLITS, FeatregError, Split
from .clip_rows import ClipRow
from .columns import SPLIT_NAMES, Columns
from .completeness import few
from .csv_rows import damaged
from .labels import Labels
from .stratify import stratify

_SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
# Training first; a class with few clips is rather tested than validated.
_ORDER: tuple[Split, ...] = ("train", "test", "valid")

_Groups = Mapping[str, Sequence[int]]


def assign_splits(
    path: Path, rows: Sequence[ClipRow], columns: Columns, labels: Labels, seed: int
) -> tuple[list[Split], str]:
    """The split of every clip, and where the splits are from, in words.

    Clips with the same group, and excerpts of one file, share a split that is not written. If
    there are three folds or more and no splits, the last fold is the test split, and the one
    before it the validation split. Otherwise the groups without a split are distributed such
    that 80 % of all clips, and of the clips of each class, are in training, and 10 % in each of
    the others; of a file with training and test splits only, a ninth of the training clips is
    used for validation. Clips without labels go to training.

    Raises
    ------
    FeatregError
        If a split is unknown, or the clips of a group are in two splits or folds.
    """
    written = _written(path, rows, columns)
    groups = _groups(rows, columns)
    split_of = _group_splits(path, rows, groups, written)
    _refuse_shared_folds(path, rows, groups)
    folds = sorted({row.fold for row in rows if row.fold is not None})
    if not any(written) and len(folds) > 2:
        ends: dict[int | None, Split] = {folds[-2]: "valid", folds[-1]: "test"}
        made = f"made from the folds: {folds[-2]} is valid, {folds[-1]} is test"
        return [ends.get(row.fold, "train") for row in rows], made
    if not labels.mask.any() and not any(written):
        return ["train"] * len(rows), "all in train, as there are no labels"
    free = {key for key, split in split_of.items() if split is None}
    closed: set[Split] = set()
    form = f"as in column '{columns.names.get('split')}'"
    if not free and {*written} == {"train", "test"} and labels.mask.any():
        free = {key for key in groups if all(written[k] == "train" for k in groups[key])}
        closed = {"test"}
        form += "; valid was taken from train"
    elif free:
        form = "made" if len(free) == len(groups) else f"{form}; the others made"
    if free:
        _make(rows, groups, labels, free, closed, split_of, seed)
        together = f", groups by '{columns.names['group']}'" if "group" in columns.names else ""
        form += f", stratified{together}, seed {seed}"
    splits = [split or "train" for split in written]
    for key, members in groups.items():
        for k in members:
            if key in free or written[k] is None:
                splits[k] = split_of[key] or "train"
    return splits, form


def _written(path: Path, rows: Sequence[ClipRow], columns: Columns) -> list[Split | None]:
    """The splits in the file."""
    known = {SPLIT_NAMES.get(row.split.lower()) for row in rows}
    meaning: dict[str | None, Split] = {
        **{split: split for split in SPLITS},
        "dev": "valid" if "train" in known else "train",
        "eval": "valid" if "test" in known else "test",
    }
    splits: list[Split | None] = []
    for row in rows:
        name = SPLIT_NAMES.get(row.split.lower())
        if (row.split and name is None) or (name == "eval" and {"valid", "test"} <= known):
            raise damaged(
                path,
                row.line,
                columns.names["split"],
                "train, valid (also val, validation, dev) or test (also eval, but not beside both)",
                repr(row.split),
            )
        splits.append(meaning.get(name))
    return splits


def _groups(rows: Sequence[ClipRow], columns: Columns) -> dict[str, list[int]]:
    """Indices of the clips that share a group, or a file if they have none."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        role = "group" if row.group else "path"
        groups[f"{columns.names[role]} '{row.group or row.file}'"].append(k)
    return dict(groups)


def _group_splits(
    path: Path, rows: Sequence[ClipRow], groups: _Groups, written: Sequence[Split | None]
) -> dict[str, Split | None]:
    """The written split of every group, None if there is none."""
    splits: dict[str, Split | None] = {}
    for key, members in groups.items():
        first = {written[k]: k for k in reversed(members)}
        distinct = [split for split in SPLITS if split in first]
        # The user may distribute the excerpts of one file over splits, but not those of a group.
        if len(distinct) > 1 and (rows[members[0]].group or None in first):
            where = [f"{split} (line {rows[k].line})" for split, k in first.items() if split]
            raise FeatregError(
                f"{path}: the clips of {key} are in {' and '.join(where)}; put them into one split"
            )
        splits[key] = distinct[0] if distinct else None
    return splits


def _refuse_shared_folds(path: Path, rows: Sequence[ClipRow], groups: _Groups) -> None:
    shared = []
    for key, members in groups.items():
        first = {rows[k].fold: rows[k].line for k in reversed(members) if rows[k].group}
        if len(first) > 1:
            lines = " and ".join(f"{fold} (line {line})" for fold, line in first.items())
            shared.append(f"{key} in folds {lines}")
    if shared:
        raise FeatregError(
            f"{path}: expected the clips of a group in one fold, found {few(shared)}"
        )


def _make(
    rows: Sequence[ClipRow],
    groups: _Groups,
    labels: Labels,
    free: set[str],
    closed: set[Split],
    split_of: dict[str, Split | None],
    seed: int,
) -> None:
    """Choose a split for the groups in `free`; their order in the file does not matter."""
    label = labels.label.astype(np.int32)
    unlabelled = ~labels.annotated
    drawn = sorted(
        (key for key in free if not unlabelled[list(groups[key])].any()),
        key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest(),
    )
    split_of.update(dict.fromkeys(free, "train"))
    sizes = np.zeros(len(_ORDER), np.int32)
    present = np.zeros((len(_ORDER), label.shape[1]), np.int32)
    for key, split in split_of.items():
        if split is not None and key not in free and split not in closed:
            sizes[_ORDER.index(split)] += len(groups[key])
            present[_ORDER.index(split)] += label[list(groups[key])].sum(axis=0)
    positives = np.array([label[list(groups[key])].sum(axis=0) for key in drawn], np.int32)
    chosen = stratify(
        positives.reshape(len(drawn), label.shape[1]),
        np.array([len(groups[key]) for key in drawn], np.int32),
        [0.0 if split in closed else _SHARES[split] for split in _ORDER],
        present,
        sizes,
    )
    split_of.update((key, _ORDER[k]) for key, k in zip(drawn, chosen, strict=True))
