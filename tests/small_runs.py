"""Configurations of small training runs on the toy dataset."""

from __future__ import annotations

from typing import Any

from featreg.train.config.config import Config
from featreg.train.config.presets import Recipe

SMALL = Recipe(width=4, crop_s=2.1, batch_size=8, epochs=3, lr=3e-3, chunks=2, precision="float32")


def config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "dataset": "toy",
        "aligned": "tones+noise-0.1s",
        "preset": "default",
        "reg": "none",
        "fusion": "none",
        "features": (),
        "alpha": 0.0,
        "fraction": 1.0,
        "seed": 0,
        "metric": "pr_auc",
        "devices": 1,
        "recipe": SMALL,
    }
    return Config(**{**values, **changes})


CONREG = config(reg="conreg", features=("tones", "noise"), alpha=0.5)


CONCAT = config(fusion="concat", features=("tones",))
