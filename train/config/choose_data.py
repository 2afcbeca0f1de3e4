"""Choice of the shards, the features and the validation metric that options select."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.datasets.base import UsageError

if TYPE_CHECKING:
    from featreg.datasets.shards.workdir import DatasetDir

    from ..data.aligned_set import AlignedSet


def choose_shards(work: Path, options: Mapping[str, Any]) -> tuple[DatasetDir, str, AlignedSet]:
    """Return the dataset, and the name and shards of its aligned set, that the options select."""
    from featreg.datasets.shards.workdir import choose, choose_dataset

    from ..data.aligned_set import AlignedSet

    folder = choose_dataset(work, options["dataset"])
    aligned = choose(
        "aligned set",
        "--aligned",
        folder.aligned_names(),
        options["aligned"],
        f"{folder.path}: no aligned features here; run `prep align --resolution 0.1` first",
    )
    return folder, aligned, AlignedSet(folder.aligned(aligned))


def choose_metric(folder: DatasetDir, shards: AlignedSet, wanted: str | None) -> str:
    """Return the metric `wanted`, or the dataset's.

    Raises
    ------
    UsageError
        If it is not a metric of the task.
    """
    from featreg.datasets.collections.registry import metric

    from ..evaluation.metrics import METRICS

    chosen = wanted or metric(folder.name, shards.task)
    fitting = [name for name, each in METRICS.items() if shards.task in each.tasks]
    if chosen not in fitting:
        raise UsageError(
            f"--metric {chosen}: not a metric of a {shards.task} task; choose from "
            f"{', '.join(fitting)}"
        )
    return chosen


def choose_features(shards: AlignedSet, wanted: str | None) -> tuple[str, ...]:
    """Return the names in a list such as ``vggish+openl3`` after checking them; None for all."""
    names = [name.strip() for name in (wanted or "").replace(",", "+").split("+")]
    return shards.features([name for name in names if name])
