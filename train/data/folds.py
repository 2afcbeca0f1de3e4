"""Folds of a cross-validation: one is tested, the one before it validates, the others train.

The folds are those that the shards store, or are made by scikit-learn: grouped (the clips of a
group are in the same fold) and stratified by class. Clips of several classes are stratified by
the rarest of them. Only the split of the clips changes; no shard is written.

With the published folds of UrbanSound8K and ESC-50, testing the last fold gives their default
split. Clips without a fold always train. Clips without labels are not used while their fold is
tested or validates.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards.workdir import DatasetDir

from .aligned_set import AlignedSet, Clips
from .groups import read_groups

if TYPE_CHECKING:
    from ..config.config import Config

Array = npt.NDArray[Any]
Folds = npt.NDArray[np.int64]

FEWEST = 3
"""Least number of folds: one to test, one to validate, one to train."""


def open_set(work: Path, config: Config) -> AlignedSet:
    """Return the aligned set of a configuration, whose splits are those of its fold, if it has one.

    Raises
    ------
    FeatregError
        If the shards cannot be used, or two folds share a group.
    UsageError
        If there is no such fold, or folds cannot be made.
    """
    folder = DatasetDir(work / config.dataset)
    aligned = AlignedSet(folder.aligned(config.aligned))
    if config.fold is None:
        return aligned
    folds = folds_of(aligned, folder, config.fold.count, config.fold.seed, config.group)
    clips = replace(aligned.clips, fold=folds)
    clips = replace(clips, split=split_by_fold(clips, config.fold.tested, str(aligned.folder)))
    made = "" if config.fold.count is None else hashlib.sha256(folds.tobytes()).hexdigest()
    aligned.divide(clips, made, _rare_classes(clips, aligned.header.classes))
    return aligned


def folds_of(
    aligned: AlignedSet, folder: DatasetDir, count: int | None, seed: int, group: str
) -> Folds:
    """Return the fold of each clip, of shape (clips,); -1 for none.

    Parameters
    ----------
    aligned
        The clips.
    folder
        The dataset's folder, whose ``clips.csv`` has the groups if `group` names no other file.
    count
        Number of folds to make; None for the folds that the shards store.
    seed
        Seed of the folds that are made.
    group
        Groups, see `read_groups`; if empty, excerpts of one file form a group.

    Raises
    ------
    FeatregError
        If clips of one group are in two stored folds.
    UsageError
        If there are no stored folds, or fewer groups than folds.
    """
    clips = aligned.clips
    if count is not None:
        groups = read_groups(group or "path", folder, clips.clip_id)
        return make_folds(clips, count, groups, seed)
    if (clips.fold < 0).all():
        raise UsageError(f"{aligned.folder}: the clips have no folds; make some, such as --folds 5")
    if group:
        _check_groups(clips.fold, read_groups(group, folder, clips.clip_id), group)
    return clips.fold


def make_folds(clips: Clips, count: int, groups: Array, seed: int) -> Folds:
    """Return stratified, grouped folds, numbered from 1.

    Parameters
    ----------
    clips
        The clips; those without labels get a fold only with the labelled clips of their group.
    count
        Number of folds.
    groups
        Group of each clip, of shape (clips,).
    seed
        Seed of the order in which scikit-learn distributes the groups.

    Raises
    ------
    UsageError
        If there are fewer than 3 folds, or fewer groups of labelled clips than folds.
    """
    labelled = np.flatnonzero(clips.label_mask.any(axis=1))
    names, group = np.unique(groups[labelled], return_inverse=True)
    if count < FEWEST:
        raise UsageError(f"--folds {count}: expected {FEWEST} or more: to test, validate and train")
    if len(names) < count:
        raise UsageError(
            f"--folds {count}: the labelled clips are in {len(names)} groups only; use fewer folds"
        )
    y = _rarest_class(clips.label[labelled] * clips.label_mask[labelled])
    # Both give the same guarantee; the one without groups is much faster for many clips.
    kind = StratifiedKFold if len(names) == len(labelled) else StratifiedGroupKFold
    if np.bincount(y).max() < count:  # scikit-learn refuses if no class reaches every fold
        y = np.zeros_like(y)
    splitter = kind(count, shuffle=True, random_state=seed)
    of_group = np.empty(len(names), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may be in fewer clips than folds
        for number, (_, tested) in enumerate(splitter.split(y, y, group), start=1):
            of_group[group[tested]] = number
    place = np.searchsorted(names, groups).clip(max=len(names) - 1)
    folds: Folds = np.where(names[place] == groups, of_group[place], -1)
    return folds


def _rarest_class(label: Array) -> Array:
    """Return the rarest class of each clip; a clip without a class gets a number of its own."""
    counts = label.sum(axis=0)
    rare = np.where(label > 0, counts, counts.max(initial=0) + 1).argmin(axis=1)
    rarest: Array = np.where(label.any(axis=1), rare, label.shape[1])
    return rarest


def split_by_fold(clips: Clips, tested: int, folder: str = "the clips") -> npt.NDArray[np.str_]:
    """Return the split of each clip if fold `tested` is tested and the fold before it validates.

    Raises
    ------
    UsageError
        If there is no such fold, or there are fewer than 3.
    """
    numbers = np.unique(clips.fold[clips.fold >= 0]).tolist()
    listed = ", ".join(map(str, numbers))
    if tested not in numbers:
        raise UsageError(f"--fold {tested}: no such fold in {folder}; its folds are {listed}")
    if len(numbers) < FEWEST:
        raise UsageError(
            f"--fold {tested}: {folder} has only the folds {listed}; expected {FEWEST} or more: to "
            "test, validate and train; make them with --folds"
        )
    valid = numbers[numbers.index(tested) - 1]
    split = np.where(clips.fold == tested, "test", np.where(clips.fold == valid, "valid", "train"))
    return np.where((split != "train") & ~clips.label_mask.any(axis=1), "unused", split)


def _check_groups(folds: Folds, groups: Array, group: str) -> None:
    first: dict[str, int] = {}
    for name, fold in zip(groups.tolist(), folds.tolist(), strict=True):
        if fold >= 0 and first.setdefault(name, fold) != fold:
            raise FeatregError(
                f"--group {group}: the clips of group {name[1:]!r} are in folds {first[name]} and "
                f"{fold}; put them into one fold, or make other folds with --folds"
            )


def _rare_classes(clips: Clips, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note on the classes that occur in one fold only, or none."""
    found = []
    for name, label in zip(classes, (clips.label * clips.label_mask).T, strict=True):
        where = np.unique(clips.fold[label > 0])
        if len(where) == 1 and where[0] >= 0:
            found.append(f"{name} (fold {where[0]})")
    if not found:
        return ()
    return (f"Classes in one fold only, which cannot be learned: {', '.join(found)}.",)
