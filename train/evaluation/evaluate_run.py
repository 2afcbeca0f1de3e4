"""Evaluation of a finished run's model on a split of its own or of other aligned shards."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.workdir import DatasetDir, choose

from ..data.aligned_set import AlignedSet
from ..data.clip_reader import ClipReader
from ..data.crops import Chunks, Cutter, Scaling
from ..data.folds import open_set
from ..deploy.model_file import Card, read_model
from ..models.probe import Probe
from ..training.build import build_fabric
from ..training.deterministic import deterministic
from ..training.memory import enough_memory
from ..training.run_dir import RunDir
from ..training.run_outputs import evaluate_predictions, groups_of
from .predict import clips_per_batch, pooled_features, predict, predict_pooled


def evaluate_run(
    run: RunDir,
    work: Path,
    split: str = "test",
    dataset: str | None = None,
    aligned: str | None = None,
    device: str = "cpu",
    workers: int = 0,
    group: str | None = None,
) -> dict[str, Any]:
    """Evaluate the model of a run on a split.

    For the run's own test split, device and versions, the numbers equal those in its report.

    Parameters
    ----------
    run
        A finished run.
    work
        The working folder.
    split
        ``train``, ``valid`` or ``test``.
    dataset, aligned
        Names that select the shards in WORK/DATASET/aligned/ALIGNED; None for those that the
        model was trained on.
    device
        ``cpu`` or ``cuda``.
    workers
        Number of threads that read batches in advance; 0 disables them.
    group
        Groups for the intervals, see `data.groups.read_groups`; None for those of the run, and
        empty for intervals by clip.

    Returns
    -------
    Dict with ``run``, ``split``, ``shards``, the shards' ``notes``, number of ``clips``, and,
    as in ``report.json``, ``metrics`` (there ``test``), ``intervals``, ``classes`` and
    ``undefined``.

    Raises
    ------
    FeatregError
        If the shards do not match the model, or memory is insufficient.
    """
    config = run.config()
    tagger, card = read_model(run.path / "model.safetensors")
    folder = DatasetDir(work / (dataset or config.dataset))
    name = aligned or (config.aligned if dataset is None else None)
    empty = f"{folder.path}: no aligned features here; run `prep align` first"
    name = choose("aligned set", "--aligned", folder.aligned_names(), name, empty)
    own = dataset is None and name == config.aligned
    shards = open_set(work, config) if own else AlignedSet(folder.aligned(name))
    check_shards(card, shards, run.read_json("config.json")["data"]["mode"])
    clips = shards.split(split)
    features = tuple(card.features)
    remedy = "free some of it, or use another --device"
    with deterministic(), enough_memory(run.name, remedy):
        if isinstance(tagger, Probe):
            reader = ClipReader(clips, shards.dims(features))
            predictions = predict_pooled(tagger, pooled_features(reader, tagger.pool), card.task)
        else:
            normalized = config.recipe.feature_norm != "none" and features
            scaling = read_scaling(run.path) if normalized else None
            chunks = Chunks(Cutter(shards, clips, features, card.samples, scaling), card.chunks)
            fabric = build_fabric(dataclasses.replace(config, devices=1), device)
            batch_size = clips_per_batch(config.recipe)
            tagger = tagger.to(fabric.device)
            predictions = predict(fabric, tagger, chunks, card.task, batch_size, workers)
    thresholds = run.read_json("report.json").get("thresholds")
    results = evaluate_predictions(
        clips,
        predictions,
        card.classes,
        card.task,
        thresholds and [thresholds[name] for name in card.classes],
        groups_of(config.group if group is None else group, shards, clips),
    )
    return {
        "run": run.name,
        "split": split,
        "shards": str(shards.folder),
        "notes": list(shards.header.notes),
        "clips": len(clips),
        "metrics": results.pop("test"),
        **results,
    }


def check_shards(card: Card, shards: AlignedSet, mode: str) -> None:
    """Check that shards match those that a model was trained on.

    Parameters
    ----------
    card
        Description of the model.
    shards
        The shards to evaluate it on.
    mode
        Alignment mode of the shards that it was trained on; ignored if the model needs no
        features.

    Raises
    ------
    FeatregError
        At the first difference; the message contains both values.
    """
    header = shards.header
    for key, expected, found in (
        ("classes", card.classes, header.classes),
        ("task", card.task, header.task),
        ("audio_rate", card.sample_rate, header.audio_rate),
        # Old shards do not contain the resampler.
        ("resampler", card.resampler, header.audio_settings.get("resampler", card.resampler)),
        ("resolution_s", card.resolution_s, header.resolution_s),
        ("mode", mode if card.features else header.mode, header.mode),
    ):
        if expected != found:
            raise FeatregError(
                f"{shards.folder}: {key} is {_short(found)}, but the model of {card.name} was "
                f"trained with {_short(expected)}; extract and align as for that run, or select "
                "its shards with --aligned"
            )
    for name, trained_feature in card.features.items():
        if name not in header.features:
            raise FeatregError(
                f"{shards.folder}: feature {name!r} not found, only "
                f"{', '.join(header.features) or 'audio'}; the model of {card.name} (--fusion "
                f"{card.fusion}) needs {'+'.join(card.features)}: add it with `prep extract` and "
                "`prep align`"
            )
        _check_feature(card, shards, name, trained_feature)


def _check_feature(card: Card, shards: AlignedSet, name: str, trained: Mapping[str, Any]) -> None:
    found = shards.header.features[name]
    for key in ("dim", "settings", "weights_sha256"):
        if trained.get(key) != found.get(key):
            raise FeatregError(
                f"{shards.folder}: {key} of {name} is {_short(found.get(key))}, but the model of "
                f"{card.name} was trained with {_short(trained.get(key))}"
            )


def _short(value: object, limit: int = 120) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_scaling(folder: Path) -> Scaling:
    """Read ``scaling.npz`` from the folder of a finished run.

    Raises
    ------
    FeatregError
        If the file is damaged.
    """
    with np.load(io.BytesIO(RunDir(folder).read_output("scaling.npz"))) as file:
        return Scaling(file["mean"], file["std"])
