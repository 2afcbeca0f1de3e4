"""Outputs of a run: configuration, predictions, embeddings and test results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from featreg.datasets.base import FeatregError, Task
from featreg.datasets.shards.hdf5 import atomic_path
from featreg.datasets.shards.workdir import DatasetDir

from ..config.config import Config
from ..data.aligned_set import AlignedSet, Clips
from ..data.crops import Scaling
from ..data.groups import read_groups
from ..evaluation.bootstrap import bootstrap
from ..evaluation.by_class import best_thresholds, confusion, with_decisions
from ..evaluation.metrics import evaluate
from ..evaluation.predict import Predictions
from ..experiments.params import count
from .checkpoint import Progress
from .objective import Objective
from .pretraining import Pretraining
from .versions import machine, versions

Groups = npt.NDArray[np.str_]


def run_config(
    config: Config,
    aligned: AlignedSet,
    clips: Mapping[str, int],
    objective: Objective | Pretraining,
    device: str,
    command: str,
) -> dict[str, Any]:
    """Return the values of ``config.json``: all settings of a run and their provenance."""
    used = objective.encoder if isinstance(objective, Pretraining) else objective.tagger
    return {
        "config": config.to_json(),
        "fingerprint": config.fingerprint(aligned.fingerprint),
        "data": {
            "fingerprint": aligned.fingerprint,
            "folder": str(aligned.folder),
            "clips": dict(clips),
            **dataclasses.asdict(aligned.header),
        },
        "parameters": {"training": count(objective), "inference": count(used)},
        "command": command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(device),
    }


def pretraining_report(progress: Progress) -> dict[str, Any]:
    """Return the values of ``report.json`` of a pretraining, which is not tested."""
    empty: dict[str, Any] = {"test": {}, "intervals": {}, "classes": [], "undefined": {}}
    return {**_best_epoch(progress), **empty}


def require_metrics(aligned: AlignedSet, split: str, clips: Clips) -> None:
    """Check that all clips of a split have labels, on which all metrics are defined.

    Raises
    ------
    FeatregError
        If a clip has none, or a metric is undefined.
    """
    without = clips.clip_id[~clips.label_mask.any(axis=1)]
    if len(without):
        raise FeatregError(
            f"{aligned.folder}, split {split}: {len(without)} of {len(clips)} clips have no "
            f"labels, such as {without[0]}; only the split train may contain such clips"
        )
    zeros = np.zeros(clips.label.shape, np.float32)
    try:
        evaluate(clips.label, zeros, clips.label_mask, aligned.header.classes, aligned.task)
    except FeatregError as error:
        raise FeatregError(f"{aligned.folder}, split {split}: {error}") from None


def report(
    progress: Progress,
    clips: Clips,
    predictions: Predictions,
    classes: Sequence[str],
    task: Task,
    thresholds: Sequence[float] | None = None,
    groups: Groups | None = None,
) -> dict[str, Any]:
    """Return the values of ``report.json``: the best epoch's validation and test results."""
    return {
        **_best_epoch(progress),
        **evaluate_predictions(clips, predictions, classes, task, thresholds, groups),
    }


def _best_epoch(progress: Progress) -> dict[str, Any]:
    best, prefix = progress.history[progress.best_epoch - 1], "valid_"
    return {
        "best_epoch": progress.best_epoch,
        "valid": {name[len(prefix) :]: best[name] for name in best if name.startswith(prefix)},
        "seconds": sum(row["seconds"] for row in progress.history),
    }


def thresholds_of(clips: Clips, predictions: Predictions, task: Task) -> list[float] | None:
    """Return the threshold of each class that is best on validation clips, if a task has them."""
    if task == "single-label":
        return None
    return best_thresholds(clips.label, predictions.probability, clips.label_mask)


def groups_of(group: str, aligned: AlignedSet, clips: Clips) -> Groups | None:
    """Return the group of each clip, see `read_groups`; None if `group` is empty."""
    folder = DatasetDir(aligned.folder.parents[1])
    return read_groups(group, folder, clips.clip_id) if group else None


def evaluate_predictions(
    clips: Clips,
    predictions: Predictions,
    classes: Sequence[str],
    task: Task,
    thresholds: Sequence[float] | None = None,
    groups: Groups | None = None,
) -> dict[str, Any]:
    """Evaluate predictions.

    Parameters
    ----------
    clips, predictions
        The clips and their predictions.
    classes, task
        Class names and kind of task.
    thresholds
        Threshold of each class, see `thresholds_of`.
    groups
        Group of each clip, for intervals by group.

    Returns
    -------
    Dict with ``test`` (metrics), ``intervals``, ``classes``, ``undefined``, and ``confusion``
    (single-label) or ``thresholds`` (multi-label).
    """
    arrays = (clips.label, predictions.probability, clips.label_mask)
    test = evaluate(*arrays, classes, task)
    intervals = bootstrap(*arrays, task, test.values, groups=groups)
    rows = with_decisions(test.classes, *arrays, task, thresholds)
    found = {
        "test": dict(test.values),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
        "classes": [dataclasses.asdict(each) for each in rows],
        "undefined": {name: list(excluded) for name, excluded in test.undefined.items()},
    }
    if task == "single-label":
        found["confusion"] = confusion(*arrays)
    elif thresholds is not None:
        found["thresholds"] = dict(zip(classes, thresholds, strict=True))
    return found


def write_scaling(folder: Path, scaling: Scaling) -> None:
    """Write ``scaling.npz``, the mean and standard deviation of the features."""
    with _npz(folder / "scaling.npz") as file:
        np.savez(file, mean=scaling.mean, std=scaling.std)


def write_predictions(
    folder: Path, clips: Clips, predictions: Predictions, classes: Sequence[str]
) -> None:
    """Write ``predictions.csv`` and ``embeddings.npz``, with clips in the order of the shards.

    The true labels follow the probabilities, in columns such as ``true:siren``; a label that is
    not annotated is empty.
    """
    table = pd.DataFrame(predictions.probability, columns=list(classes), index=clips.clip_id)
    truth = pd.DataFrame(clips.label, index=clips.clip_id).astype("Int64")
    truth = truth.mask(clips.label_mask == 0).set_axis([f"true:{name}" for name in classes], axis=1)
    table = pd.concat([table, truth], axis=1)
    with atomic_path(folder / "predictions.csv") as temporary:
        table.to_csv(temporary, index_label="clip_id", float_format="%.6f")
    with _npz(folder / "embeddings.npz") as file:
        np.savez(
            file,
            clip_id=clips.clip_id,
            embedding=predictions.embedding,
            label=clips.label,
            label_mask=clips.label_mask,
        )


@contextmanager
def _npz(path: Path) -> Iterator[BinaryIO]:
    """Open a file for `numpy.savez`, which would append a suffix to a temporary file's name."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file
