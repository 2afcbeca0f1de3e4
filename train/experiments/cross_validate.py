"""Cross-validation: one method trained and tested on every fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.hdf5 import atomic_path
from featreg.datasets.shards.workdir import DatasetDir

from ..config.config import Config, Fold
from ..data.aligned_set import AlignedSet
from ..data.folds import folds_of, split_by_fold
from ..evaluation.metrics import METRICS
from .choose_alpha import with_seeds
from .compare import Group, spread


def plan(
    config: Config, work: Path, count: int | None, fold_seed: int, seeds: int
) -> list[list[Config]]:
    """Return the configurations of each fold with all seeds.

    Parameters
    ----------
    config
        The method, without a fold.
    work
        The working folder.
    count, fold_seed
        Number and seed of the folds to make; None for the folds that the shards store.
    seeds
        Number of seeds.

    Raises
    ------
    FeatregError
        If clips of one group are in two folds.
    UsageError
        If there are no folds, fewer than 3, or fewer groups than folds.
    """
    folder = DatasetDir(work / config.dataset)
    aligned = AlignedSet(folder.aligned(config.aligned))
    folds = folds_of(aligned, folder, count, fold_seed, config.group)
    clips = dataclasses.replace(aligned.clips, fold=folds)
    numbers = sorted({*folds.tolist()} - {-1})
    split_by_fold(clips, numbers[0], str(aligned.folder))  # refuses fewer than 3 folds
    made = [Fold(number, count, fold_seed if count is not None else 0) for number in numbers]
    return [with_seeds(dataclasses.replace(config, fold=fold), seeds) for fold in made]


def every_fold(groups: Sequence[Group]) -> Group:
    """Return the group of the runs of all folds.

    Raises
    ------
    FeatregError
        If there is none, since all runs are damaged.
    """
    results = [result for each in groups for result in each.results]
    if not results:
        raise FeatregError("the runs of all folds are damaged; see the warnings above")
    return Group(groups[0].label, results)


def table(group: Group) -> pd.DataFrame:
    """Return the test metrics of each fold, and their mean and spread in the last row."""
    names = list(group.results[0].report["test"])
    rows, clips = [], 0
    for fold in group.folds:
        runs = [
            each for each in group.results if each.config.fold and each.config.fold.tested == fold
        ]
        count = runs[0].about["data"]["clips"]["test"]
        values = {METRICS[name].title: spread(Group("", runs).samples(name)) for name in names}
        rows.append({"fold": str(fold), "test clips": count, **values})
        clips += count
    every = {METRICS[name].title: spread(group.samples(name)) for name in names}
    found: pd.DataFrame = pd.DataFrame([*rows, {"fold": "mean", "test clips": clips, **every}])
    return found


def write(found: pd.DataFrame, group: Group, folder: Path) -> Path:
    """Write the table as CSV; return its path."""
    config, fold = dataclasses.replace(group.config, fold=None), group.config.fold
    made = f"-of{fold.count}" if fold and fold.count is not None else ""
    path = folder / f"cross-validation-{config.dataset}-{config.label}{made}.csv"
    with atomic_path(path) as temporary:
        found.to_csv(temporary, index=False)
    return path
