"""Audio files and a dataset to benchmark with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from featreg.datasets.base import Clip, Dataset

NOTHING = np.zeros(50, np.uint8)


def write_audio(folder: Path, rate: int, channels: int, seconds: float, suffix: str) -> list[Path]:
    """Write files of chords with noise."""
    folder.mkdir()
    paths = []
    t = np.arange(round(seconds * rate))[:, None] / rate
    for k in range(8):
        rng = np.random.default_rng(k)
        chord = np.sin(2 * np.pi * t * rng.uniform(100, 2000, 8)).mean(1, keepdims=True)
        noise = rng.standard_normal((len(t), channels))
        paths.append(folder / f"{k}.{suffix}")
        soundfile.write(paths[-1], 0.5 * chord + 0.02 * noise, rate)
    return paths


def make_dataset(paths: list[Path], count: int) -> Dataset:
    """Dataset of `count` clips that use these files in turn."""
    clips = tuple(
        Clip(f"{k:05d}", paths[k % len(paths)], "train", NOTHING, NOTHING) for k in range(count)
    )
    return Dataset("benchmark", tuple(f"class {k}" for k in range(len(NOTHING))), clips)
