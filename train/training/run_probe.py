"""One run of a probe: pooling, fitting, validation and test, in a run folder like a network's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from featreg.datasets.base import FeatregError, Task
from featreg.datasets.console import say
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.config import Config
from ..data.aligned_set import AlignedSet, Clips
from ..data.clip_reader import ClipReader
from ..data.folds import open_set
from ..data.unlabelled import training_clips
from ..deploy.model_file import Card, write_model
from ..evaluation.metrics import METRICS, evaluate
from ..evaluation.predict import pooled_features, predict_pooled
from ..models.probe import Probe
from .deterministic import deterministic
from .fit_probe import HIDDEN, Pooled, fit_probe
from .memory import enough_memory
from .objective import Objective
from .run_dir import RunDir, run_dir
from .run_outputs import (
    groups_of,
    report,
    require_metrics,
    run_config,
    thresholds_of,
    write_predictions,
)


def run_probe(
    config: Config,
    work: Path,
    name: str | None = None,
    fresh: bool = False,
    command: str = "",
) -> RunDir:
    """Fit and test the probe that `config` describes. A finished run is not repeated.

    Parameters
    ----------
    config
        The configuration, with `probe`.
    work
        The working folder.
    name
        Name of the run folder; None for a name derived from `config`.
    fresh
        Whether to delete an existing run of this name and fit again.
    command
        The command line that started the run, to be stored in ``config.json``.

    Returns
    -------
    The folder of the finished run.

    Raises
    ------
    FeatregError
        If the training clips have fewer than two classes, a metric is undefined on the
        validation or test split, or a file of the run is damaged.
    UsageError
        If the folder contains another run.
    """
    aligned = open_set(work, config)
    folder = run_dir(work, config, name)
    chosen = aligned.split("train").fraction(config.fraction, config.seed)
    splits = {
        "train": training_clips(chosen, config.label_fraction, config.seed).clips,
        "valid": aligned.split("valid"),
        "test": aligned.split("test"),
    }
    for split in ("valid", "test"):
        require_metrics(aligned, split, splits[split])
    if fresh:
        folder.clear()
    with folder.claim(config, aligned.fingerprint, aligned.header) as todo:
        if not todo:
            say(f"{folder.name}: already finished; use --fresh to repeat it")
            return folder
        say(f"{folder.path}: {config.title}")
        remedy = "use fewer --features, or a smaller --fraction"
        with deterministic(), enough_memory(folder.name, remedy):
            _fit_and_test(config, aligned, splits, folder, command)
    return folder


def _fit_and_test(
    config: Config,
    aligned: AlignedSet,
    splits: Mapping[str, Clips],
    folder: RunDir,
    command: str,
) -> None:
    assert config.probe is not None
    header, task = aligned.header, aligned.task
    pooled = {
        name: pooled_features(ClipReader(clips, aligned.dims(config.features)), config.probe.pool)
        for name, clips in splits.items()
    }
    torch.manual_seed(config.seed)
    options: dict[str, Any] = {
        "pool": config.probe.pool,
        "hidden": HIDDEN if config.probe.kind == "mlp" else 0,
    }
    probe = Probe(aligned.dim(config.features), len(header.classes), **options)
    train, valid = (Pooled(splits[name], pooled[name]) for name in ("train", "valid"))
    kind, metric = config.probe.kind, METRICS[config.metric]
    try:
        progress = fit_probe(probe, kind, train, valid, task, metric, config.seed)
    except FeatregError as error:
        raise FeatregError(f"{aligned.folder}: {error}") from None
    values = _evaluated(probe, valid, header.classes, task)
    progress.history[progress.best_epoch - 1] |= {f"valid_{k}": v for k, v in values.items()}
    labelled = len(train.known().clips)
    counts = {"train": labelled, "unlabelled": len(splits["train"]) - labelled}
    counts = {split: count for split, count in counts.items() if count}
    counts |= {split: len(splits[split]) for split in ("valid", "test")}
    about = (config, aligned, counts, Objective(probe, None, 0.0, task), "cpu", command)
    folder.write_json("config.json", run_config(*about))
    with atomic_path(folder.path / "metrics.csv") as temporary:
        pd.DataFrame(progress.history).to_csv(temporary, index=False)
    card = dataclasses.replace(
        Card.of(folder.name, config, header),
        encoder="none",
        encoder_options=options,
        fusion="probe",
        samples=_typical_samples(splits["train"]),
    )
    write_model(folder.path / "model.safetensors", probe, card)
    predictions = predict_pooled(probe, pooled["test"], task)
    write_predictions(folder.path, splits["test"], predictions, header.classes)
    thresholds = thresholds_of(valid.clips, predict_pooled(probe, valid.features, task), task)
    groups = groups_of(config.group, aligned, splits["test"])
    tested = (splits["test"], predictions, header.classes, task, thresholds, groups)
    results = report(progress, *tested)
    folder.write_json("report.json", results)


def _evaluated(
    probe: Probe, data: Pooled, classes: Sequence[str], task: Task
) -> Mapping[str, float]:
    """Return all metrics of the task on some clips."""
    probability = predict_pooled(probe, data.features, task).probability
    return evaluate(data.clips.label, probability, data.clips.label_mask, classes, task).values


def _typical_samples(clips: Clips) -> int:
    """Return the median length of clips, in samples of audio."""
    return int(np.median(clips.audio[:, 1] - clips.audio[:, 0]))
