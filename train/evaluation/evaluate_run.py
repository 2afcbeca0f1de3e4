"""A finished run's model on a split of aligned shards: its own, or others."""

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
from ..data.crops import Chunks, Cutter, Scaling
from ..deploy.model_file import Card, read_model
from ..training.build import build_fabric
from ..training.deterministic import deterministic
from ..training.memory import enough_memory
from ..training.run_dir import RunDir
from ..training.run_outputs import worth
from .predict import clips_together, predict


def evaluate_run(
    run: RunDir,
    work: Path,
    split: str = "test",
    dataset: str | None = None,
    aligned: str | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> dict[str, Any]:
    """What the model of a run is worth on a split.

    On the run's own test split, device and versions the numbers equal its report's.

    Parameters
    ----------
    run
        Finished.
    work
        The working folder.
    split
        ``train``, ``valid`` or ``test``.
    dataset, aligned
        Shards: WORK/DATASET/aligned/ALIGNED; None: those that it was trained on.
    device
        ``cpu`` or ``cuda``.
    workers
        Threads that read ahead; 0: none.

    Returns
    -------
    ``run``, ``split``, ``shards``, their ``notes``, ``clips``, and as in ``report.json``
    ``test`` (here ``metrics``), ``intervals``, ``classes``, ``undefined``.

    Raises
    ------
    FeatregError
        If the model and the shards do not go together, or memory is too small.
    """
    config = run.config()
    tagger, card = read_model(run.path / "model.safetensors")
    folder = DatasetDir(work / (dataset or config.dataset))
    name = aligned or (config.aligned if dataset is None else None)
    nothing = f"{folder.path}: nothing is aligned here; run `prep align` first"
    name = choose("aligned set", "--aligned", folder.aligned_names(), name, nothing)
    shards = AlignedSet(folder.aligned(name))
    check(card, shards, run.read_json("config.json")["data"]["mode"])
    clips = shards.split(split)
    features = tuple(card.features)
    scaling = read_scaling(run.path) if config.recipe.standardize and features else None
    chunks = Chunks(Cutter(shards, clips, features, card.samples, scaling), card.chunks)
    fabric = build_fabric(dataclasses.replace(config, devices=1), device)
    together = clips_together(config.recipe)
    remedy = "free some of it, or use another --device"
    with deterministic(), enough_memory(run.name, remedy):
        found = predict(fabric, tagger.to(fabric.device), chunks, card.task, together, workers)
    values = worth(clips, found, card.classes, card.task)
    return {
        "run": run.name,
        "split": split,
        "shards": str(shards.folder),
        "notes": list(shards.header.notes),
        "clips": len(clips),
        "metrics": values.pop("test"),
        **values,
    }


def check(card: Card, shards: AlignedSet, mode: str) -> None:
    """See that shards hold what a model was trained on.

    Parameters
    ----------
    card
        Of the model.
    shards
        What it is to be used on.
    mode
        How the shards that it was trained on were aligned; that matters to features alone.

    Raises
    ------
    FeatregError
        At the first difference; the message names both sides.
    """
    header = shards.header
    for what, trained, there in (
        ("classes", card.classes, header.classes),
        ("task", card.task, header.task),
        ("audio_rate", card.sample_rate, header.audio_rate),
        # Shards of before it was kept do not say.
        ("resampler", card.resampler, header.audio_settings.get("resampler", card.resampler)),
        ("resolution_s", card.resolution_s, header.resolution_s),
        ("mode", mode if card.features else header.mode, header.mode),
    ):
        if trained != there:
            raise FeatregError(
                f"{shards.folder}: {what} is {_short(there)}, but the model of {card.name} was "
                f"trained with {_short(trained)}; extract and align as for that run, or name its "
                "shards with --aligned"
            )
    for name, trained_feature in card.features.items():
        if name not in header.features:
            raise FeatregError(
                f"{shards.folder} holds no {name!r}, only {', '.join(header.features) or 'audio'}; "
                f"the model of {card.name} (--fusion {card.fusion}) needs "
                f"{'+'.join(card.features)}: add it with `prep extract` and `prep align`"
            )
        _check_feature(card, shards, name, trained_feature)


def _check_feature(card: Card, shards: AlignedSet, name: str, trained: Mapping[str, Any]) -> None:
    there = shards.header.features[name]
    for key in ("dim", "settings", "weights_sha256"):
        if trained.get(key) != there.get(key):
            raise FeatregError(
                f"{shards.folder}: {key} of {name} is {_short(there.get(key))}, but the model of "
                f"{card.name} was trained with {_short(trained.get(key))}"
            )


def _short(value: object, limit: int = 120) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_scaling(folder: Path) -> Scaling:
    """``scaling.npz`` of a finished run's folder.

    Raises
    ------
    FeatregError
        If it is damaged.
    """
    with np.load(io.BytesIO(RunDir(folder).read_output("scaling.npz"))) as file:
        return Scaling(file["mean"], file["std"])
