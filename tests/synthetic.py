"""Aligned shards of clips whose labels can be heard: every class is a tone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featreg.datasets.base import Clip, Dataset, Split
from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer
from featreg.datasets.shards.workdir import DatasetDir

RATE = 16000
TONES_HZ = {"low": 220.0, "middle": 880.0, "high": 3520.0}


def header(
    resolution_s: float = 0.1, dims: dict[str, int] | None = None, **changes: Any
) -> AlignedHeader:
    dims, start, features = dims or {"tones": 4, "noise": 3}, 0, {}
    for name, dim in dims.items():
        features[name] = {"dim": dim, "columns": [start, start + dim]}
        start += dim
    values: dict[str, Any] = {
        "dataset": "toy",
        "task": "multi-label",
        "classes": tuple(TONES_HZ),
        "resolution_s": resolution_s,
        "mode": "repeat",
        "audio_rate": RATE,
        "features": features,
        "notes": ("Tones, not music.",),
    }
    return AlignedHeader(**{**values, **changes})


def toy_clip(
    clip_id: str, split: Split, duration_s: float, about: AlignedHeader
) -> tuple[Clip, dict[str, np.ndarray], np.ndarray]:
    """A clip of tones and noise, its features and its audio."""
    rng = np.random.default_rng(sum(clip_id.encode()))
    label = rng.integers(0, 2, len(about.classes)).astype(np.uint8)
    if about.task == "single-label":
        label = np.eye(len(about.classes), dtype=np.uint8)[rng.integers(len(about.classes))]
    n = round(duration_s * about.audio_rate)
    t = np.arange(n) / about.audio_rate
    tones = np.stack([np.sin(2 * np.pi * hz * t) for hz in TONES_HZ.values()])
    audio = 0.2 * label @ tones + 0.02 * rng.standard_normal(n)
    rows = int(np.ceil(n / (about.resolution_s * about.audio_rate) - 1e-9))
    features = {}
    for name, feature in about.features.items():
        values = rng.standard_normal((rows, feature["dim"])).astype(np.float32)
        values[:, 0] = np.arange(rows)  # says which row it is
        if name == "tones":
            values[:, 1:] = 0.1 * values[:, 1:] + label
        features[name] = values
    clip = Clip(clip_id, Path(f"{clip_id}.wav"), split, label, np.ones_like(label))
    return clip, features, (audio * 32767).astype(np.int16)


def write_shard(
    path: Path, split: Split, durations_s: Sequence[float], about: AlignedHeader
) -> list[Clip]:
    clips = []
    with aligned_writer(path, about, sources="synthetic") as shard:
        for k, duration_s in enumerate(durations_s):
            clip, features, audio = toy_clip(f"{path.stem}-{k}", split, duration_s, about)
            shard.append(clip, features, audio, duration_s)
            clips.append(clip)
    return clips


def write_toy(
    work: Path,
    shards: dict[Split, Sequence[int]] | None = None,
    seconds: float = 3.0,
    about: AlignedHeader | None = None,
    aligned: str = "tones+noise-0.1s",
) -> Path:
    """The dataset ``toy`` in a working folder: clips in each shard of each split."""
    about = about or header()
    folder, clips = DatasetDir(work / about.dataset), []
    for split, counts in (shards or {"train": (10, 6), "valid": (8,), "test": (9,)}).items():
        for number, count in enumerate(counts):
            path = folder.aligned(aligned) / f"{split}-{number:05d}.h5"
            clips += write_shard(path, split, [seconds] * count, about)
    dataset = Dataset(about.dataset, about.classes, tuple(clips), about.task)
    folder.write_dataset(dataset, list(about.features))
    return folder.aligned(aligned)
