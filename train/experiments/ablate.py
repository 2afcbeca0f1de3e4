"""Test metric against the fraction of the training clips, for two methods (Figure 2).

``reports/ablate-DATASET-REG-FEATURES.csv`` has one row per method and fraction; the plot is
created from it.
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

from ..config.config import Config
from ..evaluation.bootstrap import Values, draws, interval, resampled
from ..report.print_table import UNKNOWN
from ..training.versions import command_line
from .choose_alpha import with_seeds
from .compare import Group, Result
from .differences import alphas

LEVEL = 0.95
"""Confidence level of the bands."""

SEEDS_FOR_T = 3
"""Minimum number of seeds for a band from Student's t distribution."""


def read_fractions(text: str) -> list[float]:
    """Parse percentages such as ``10,30,100``; return fractions in ascending order.

    Raises
    ------
    UsageError
        If a percentage is not a number in (0, 100].
    """
    try:
        percents = sorted({float(percent) for percent in text.split(",")})
    except ValueError:
        percents = [0.0]
    if not all(0 < percent <= 100 for percent in percents):
        raise UsageError(f"--fractions {text}: expected percentages in (0, 100], such as 10,50,100")
    return [percent / 100 for percent in percents]


def plan(config: Config, fractions: Sequence[float], seeds: int) -> list[list[Config]]:
    """Return the configurations of each fraction with all seeds.

    For the same seed, a smaller fraction of the training clips is a subset of a larger one.
    """
    every = [dataclasses.replace(config, fraction=fraction) for fraction in fractions]
    return [with_seeds(each, seeds) for each in every]


def points(groups: Sequence[Group], chosen: str = "") -> pd.DataFrame:
    """Return mean and band of the test metric, one row per group, sorted by fraction.

    Parameters
    ----------
    groups
        The groups of the baseline and of a regularized method with each fraction.
    chosen
        Sentence on the choice of alpha; empty if no other alpha was tried.
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
                "command": command_line(),
            }
        )
    found = pd.DataFrame(rows).sort_values("fraction", kind="stable", ignore_index=True)
    ordered: pd.DataFrame = found
    return ordered


def _note(each: Group, chosen: str) -> str:
    """Return a sentence on the origin of a group's alpha; empty without a regularizer."""
    config = each.config
    if config.reg == "none":
        return ""
    default = f"alpha of {config.method_title} is {config.alpha_text}; no other value was tried."
    return chosen or " ".join(alphas([each])) or default


def band(group: Group) -> tuple[float, float, str]:
    """Return the limits of the confidence band of a group's test metric, and its kind.

    With `SEEDS_FOR_T` seeds or more, Student's t interval of the mean over seeds (kind
    ``seeds``), which reflects the variation of training, including the choice of clips. With
    fewer seeds, the bootstrap interval of the mean over test clips, with the same draws for
    each seed (kind ``test clips``), which reflects the variation of the test set only.
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
    """Return the metric on resampled test clips, with the same draws as in the run's report."""
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
    """Return the row of the regularized method with the most training clips."""
    rows = found[found["alpha"].notna()]
    last: pd.Series[Any] = rows.iloc[-1]
    return last


def formatted(found: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of the figure for display: fractions (rows), methods (columns)."""
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
    """Return a description of the figure, with the origin of alpha."""
    last = regularized(found)
    unknown = f"alpha of {last['method']} is {last['alpha']:g}; its origin is not stored."
    return f"{_bands(found)} {last.get('note', unknown)}"


def _bands(found: pd.DataFrame) -> str:
    seeds = found["seeds"].min()
    if (found["band"] == "seeds").all():
        return (
            f"Test split, mean over {seeds} seeds. The bands are {LEVEL:.0%} confidence intervals "
            "of this mean (Student's t), which reflect the variation of training and of the choice "
            "of clips."
        )
    counted = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
    return (
        f"Test split, {counted}. The bands are {LEVEL:.0%} confidence intervals from resampled "
        "test clips, which reflect the variation of the test set but not of training."
    )


def write(found: pd.DataFrame, folder: Path) -> Path:
    """Write the figure as CSV, PNG, SVG and PDF; return the path of the CSV file."""
    from ..report.plots import KINDS, ablation, save

    last = regularized(found)
    stem = f"ablate-{last['dataset']}-{last['method'].lower()}-{last['features']}"
    figure = ablation(found)
    for kind in KINDS:
        with atomic_path(folder / f"{stem}.{kind}") as temporary:
            save(figure, temporary, kind)
    with atomic_path(folder / f"{stem}.csv") as temporary:
        found.to_csv(temporary, index=False)
    return folder / f"{stem}.csv"


def read(folder: Path, dataset: str) -> list[pd.DataFrame]:
    """Read the CSV files that `write` wrote for a dataset."""
    found = [
        pd.read_csv(path, keep_default_na=True) for path in sorted(folder.glob("ablate-*.csv"))
    ]
    return [each for each in found if (each["dataset"] == dataset).all()]
