"""Which weight of a regularizer does best on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from featreg.datasets.console import say

from .compare import Group, Result, notes, spread
from .metrics import METRICS
from .presets import Config
from .run import run


def choose_alpha(
    config: Config,
    alphas: Sequence[float],
    seeds: int,
    work: Path,
    device: str,
    workers: int | None,
) -> tuple[float, pd.DataFrame]:
    """Train with every alpha and choose by validation; the test split decides nothing.

    Parameters
    ----------
    config
        What is run; its alpha is replaced, and its seed is the first of `seeds`.
    alphas
        Weights to try; 0 is the regularizer's network without its effect.
    seeds
        Runs of each, with successive seeds.
    work, device, workers
        As in `run`. Runs that are done are not repeated.

    Returns
    -------
    The alpha with the best mean validation metric, and a table of all.
    """
    groups = []
    for alpha in alphas:
        results = []
        for seed in range(config.seed, config.seed + seeds):
            variant = dataclasses.replace(config, alpha=alpha, seed=seed)
            results.append(Result(run(variant, work, device=device, workers=workers)))
        groups.append(Group(f"{alpha:g}", results))
    values = [list(each.values(config.metric, "valid").values()) for each in groups]
    sign = 1 if METRICS[config.metric].higher_is_better else -1
    best = int(np.argmax([sign * np.mean(each) for each in values]))
    table = pd.DataFrame(
        {
            "alpha": [each.label for each in groups],
            "seeds": seeds,
            f"valid {METRICS[config.metric].title}": [spread(each) for each in values],
            "": ["chosen" if number == best else "" for number in range(len(groups))],
        }
    )
    for note in notes(groups):
        say(note)
    return alphas[best], table
