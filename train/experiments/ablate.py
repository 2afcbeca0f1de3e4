"""Figure 2 of the paper: how a method fares as training clips become few.

``reports/ablate-DATASET-REG-FEATURES.csv`` holds a row for every method and share of the
training clips; the plot is made of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from featreg.datasets.base import UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.presets import Config
from ..evaluation.bootstrap import Values, draws, interval, resampled
from ..report.print_table import UNKNOWN
from ..training.versions import typed
from .choose_alpha import with_seeds
from .compare import Group, Result, alphas

LEVEL = 0.95
"""Probability mass of a band."""

SEEDS_FOR_T = 3
"""From so many seeds on, the band is that of their mean."""


def read_fractions(text: str) -> list[float]:
    """Shares of the training clips, ascending, from percents: ``10,30,100``.

    Raises
    ------
    UsageError
        If one is no number above 0 and up to 100.
    """
    try:
        percents = sorted({float(percent) for percent in text.split(",")})
    except ValueError:
        percents = [0.0]
    if not all(0 < percent <= 100 for percent in percents):
        raise UsageError(
            f"--fractions {text}: expected percents above 0 and up to 100, such as 10,50,100"
        )
    return [percent / 100 for percent in percents]


def plan(config: Config, fractions: Sequence[float], seeds: int) -> list[list[Config]]:
    """A configuration for each fraction, with every seed.

    Of one seed, a smaller share of the training clips lies inside every larger one.
    """
    every = [dataclasses.replace(config, fraction=fraction) for fraction in fractions]
    return [with_seeds(each, seeds) for each in every]


def points(groups: Sequence[Group], chosen: str = "") -> pd.DataFrame:
    """A row for each group, by fraction: mean and band of its test metric.

    Parameters
    ----------
    groups
        The baseline and a regularized method, with every fraction.
    chosen
        How alpha was chosen, in a sentence; empty if no other was tried.
    """
    rows = []
    for each in groups:
        config = each.config
        values = list(each.values(config.metric).values())
        low, high, kind = band(each)
        rows.append(
            {
                "dataset": config.dataset,
                "method": config.method_title,
                "features": "+".join(config.features),
                "alpha": config.alpha if config.reg != "none" else np.nan,
                "fraction": config.fraction,
                "clips": each.results[0].about["data"]["clips"]["train"],
                "metric": config.metric,
                "seeds": len(values),
                "mean": np.mean(values),
                "low": low,
                "high": high,
                "band": kind,
                "runs": " ".join(result.folder.name for result in each.results),
                "note": _note(each, chosen),
                "command": typed(),
            }
        )
    found = pd.DataFrame(rows).sort_values("fraction", kind="stable", ignore_index=True)
    ordered: pd.DataFrame = found
    return ordered


def _note(each: Group, chosen: str) -> str:
    """Where a group's alpha comes from; empty without one."""
    config = each.config
    if config.reg == "none":
        return ""
    alone = f"alpha of {config.method_title} is {config.alpha:g}; no other was tried for this."
    return chosen or " ".join(alphas([each])) or alone


def band(group: Group) -> tuple[float, float, str]:
    """Ends of the `LEVEL` confidence band of a group's test metric, and what it holds.

    With `SEEDS_FOR_T` seeds or more, Student's t interval of the mean over seeds: the
    scatter of training, of the choice of clips too. With fewer, the `interval` of the mean
    over draws of test clips, the same for every seed: the scatter of the test set only.
    """
    metric = group.config.metric
    values = np.array(list(group.values(metric).values()))
    if len(values) >= SEEDS_FOR_T:
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * error)
        return values.mean() - half, values.mean() + half, "seeds"
    drawn = np.mean([_drawn(result) for result in group.results], axis=0)
    return *interval(drawn, float(values.mean()), LEVEL), "test clips"


def _drawn(result: Result) -> Values:
    """The metric on resampled test clips: the draws of the interval in the run's report."""
    arrays = result.embeddings()
    probability = result.predictions().loc[arrays["clip_id"]].to_numpy()
    values = resampled(
        arrays["label"],
        probability,
        arrays["label_mask"],
        draws(len(probability)),
        result.about["data"]["task"],
    )
    return values[result.config.metric]


def regularized(found: pd.DataFrame) -> pd.Series[Any]:
    """The row of the regularized method with the most training clips."""
    rows = found[found["alpha"].notna()]
    last: pd.Series[Any] = rows.iloc[-1]
    return last


def in_words(found: pd.DataFrame) -> pd.DataFrame:
    """The figure as a table: fractions down, methods across."""
    cells = found.assign(
        value=[
            f"{mean:.3f} ({low:.3f} to {high:.3f})"
            for mean, low, high in found[["mean", "low", "high"]].itertuples(index=False)
        ],
    )
    wide = cells.pivot(index="fraction", columns="method", values="value").fillna(UNKNOWN)
    wide = wide[cells["method"].unique()]
    named: pd.DataFrame = wide.rename_axis(columns=None).reset_index(names="training clips")
    named["training clips"] = [f"{100 * fraction:g} %" for fraction in wide.index]
    return named


def caption(found: pd.DataFrame) -> str:
    """What the figure shows, in words, and where its alpha comes from."""
    last = regularized(found)
    unknown = f"alpha of {last['method']} is {last['alpha']:g}; how it was chosen is not stored."
    return f"{_bands(found)} {last.get('note', unknown)}"


def _bands(found: pd.DataFrame) -> str:
    seeds = found["seeds"].min()
    if (found["band"] == "seeds").all():
        return (
            f"Test split, mean over {seeds} seeds. The bands hold the mean over seeds with "
            f"{LEVEL:.0%} confidence (Student's t): what training and the choice of clips scatter."
        )
    counted = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
    return (
        f"Test split, {counted}. The bands are {LEVEL:.0%} intervals over resampled test clips: "
        "they hold the scatter of the test set, and not that of training."
    )


def write(found: pd.DataFrame, folder: Path) -> Path:
    """CSV, PNG and SVG of the figure; the path of the CSV."""
    from ..report.plots import ablation, save

    last = regularized(found)
    stem = f"ablate-{last['dataset']}-{last['method'].lower()}-{last['features']}"
    figure = ablation(found)
    for kind in ("png", "svg"):
        with atomic_path(folder / f"{stem}.{kind}") as temporary:
            save(figure, temporary, kind)
    with atomic_path(folder / f"{stem}.csv") as temporary:
        found.to_csv(temporary, index=False)
    return folder / f"{stem}.csv"


def read(folder: Path, dataset: str) -> list[pd.DataFrame]:
    """The figures of a dataset that `write` wrote."""
    found = [
        pd.read_csv(path, keep_default_na=True) for path in sorted(folder.glob("ablate-*.csv"))
    ]
    return [each for each in found if (each["dataset"] == dataset).all()]
