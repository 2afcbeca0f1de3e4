"""Small runs on the toy dataset, and the command line as it is typed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from synthetic import RATE, TONES_HZ

from featreg.train.cli.train import train
from featreg.train.config.config import Config
from featreg.train.config.presets import Recipe

CLASSES = tuple(TONES_HZ)
RECIPE = Recipe(
    encoder="mel_cnn",
    width=2,
    crop_s=1.0,
    batch_size=8,
    epochs=2,
    lr=3e-3,
    chunks=3,
    precision="float32",
)
CONREG = Config(
    dataset="toy",
    aligned="tones+noise-0.1s",
    preset="default",
    reg="conreg",
    fusion="none",
    features=("tones", "noise"),
    alpha=0.5,
    fraction=1.0,
    seed=0,
    metric="pr_auc",
    devices=1,
    recipe=RECIPE,
)
CONCAT = dataclasses.replace(
    CONREG,
    reg="none",
    alpha=0.0,
    fusion="concat",
    recipe=dataclasses.replace(RECIPE, epochs=1, feature_norm="standardize"),
)


def call(work: Path, *arguments: str | Path) -> Result:
    """``train ARGUMENTS --work WORK``."""
    return CliRunner().invoke(train, [*map(str, arguments), "--work", str(work)])


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """White noise of shape (samples,)."""
    values = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (0.1 * values).astype(np.float32)
