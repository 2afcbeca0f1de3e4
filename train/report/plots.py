"""Figures of runs, narrow enough for a phone and for a printed column."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from featreg.datasets.shards.hdf5 import atomic_path

from ..evaluation.metrics import METRICS
from ..experiments.compare import Group
from .embedding_map import project

_WIDTH = 4.6  # inches; 9-point text is 10 pixels high on a phone with a width of 390 pixels
_MAP_CLASSES = 3
_MOST_NUMBERS = 30  # classes up to which a confusion matrix has numbers in its cells
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text is stored as text, which can be searched
    "svg.hashsalt": "featreg",  # makes the ids in the file reproducible
}
# The colors of Okabe and Ito, distinguishable with color vision deficiency; dark colors first.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX"


KINDS = ("png", "svg", "pdf")
"""Formats of figures in files."""


def data_uri(figure: Figure) -> str:
    """Return the figure as a PNG in a data URI, for embedding in a web page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@mpl.rc_context(_STYLE)
def save(figure: Figure, path: Path, kind: str) -> None:
    """Save the figure as one of `KINDS`; equal figures give equal files."""
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(path, format=kind, dpi=200, bbox_inches="tight", metadata=metadata)


def publish(figure: Figure, stem: Path, name: str) -> str:
    """Write the figure as STEM-NAME in all `KINDS`; return it as `data_uri` does."""
    for kind in KINDS:
        with atomic_path(stem.with_name(f"{stem.name}-{name}.{kind}")) as temporary:
            save(figure, temporary, kind)
    return data_uri(figure)


def _style(number: int) -> dict[str, Any]:
    return {"color": _color(number), "marker": _MARKERS[number % len(_MARKERS)]}


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _wrapped(label: str, width: int) -> str:
    """Wrap a label at spaces and after the + of combined features."""
    mark = "\0"  # marks a possible line break without a space
    lines = textwrap.wrap(label.replace("+", f"+{mark} "), width, break_on_hyphens=False)
    return "\n".join(lines).replace(f"{mark} ", "").replace(mark, "")


@mpl.rc_context(_STYLE)
def learning_curves(groups: Sequence[Group]) -> Figure:
    """Plot the task's training loss and the validation metric against the epoch.

    Thin lines are single seeds, thick lines are the means of the groups.
    """
    metric = groups[0].config.metric
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    titles = {
        "task_loss": "training loss (task)",
        f"valid_{metric}": f"validation {METRICS[metric].title}",
    }
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for number, each in enumerate(groups):
            curves = [result.curves.set_index("epoch")[column] for result in each.results]
            if len(curves) > 1:
                for curve in curves:
                    axes.plot(curve, color=_color(number), linewidth=0.5, alpha=0.35)
            mean = pd.concat(curves, axis=1).mean(axis=1)
            axes.plot(mean, color=_color(number), linewidth=1.8, label=each.label)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    panels[1].set_xlabel("epoch")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=1
    )
    return figure


@mpl.rc_context(_STYLE)
def per_class(groups: Sequence[Group]) -> Figure:
    """Plot each class's average precision on the test split, as mean over seeds, and chance.

    Chance is the fraction of positive clips. Classes without positive clips are omitted.

    Parameters
    ----------
    groups
        Groups with the same test set.
    """
    means = [each.precision for each in groups]
    order = means[0].dropna().sort_values().index
    counts = groups[0].results[0].classes
    chance = counts["positives"] / counts["annotated"]
    height = 0.8 + 0.17 * len(groups) + 0.26 * len(order)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(order))
    axes.hlines(y, 0, 1, color="0.93", zorder=0)
    axes.scatter(chance[order], y, marker="|", color="0.5", s=60, label="chance")
    for number, (each, mean) in enumerate(zip(groups, means, strict=True)):
        style = _style(number)
        axes.scatter(mean[order], y, s=22, label=each.label, alpha=0.8, linewidths=0, **style)
    axes.set_yticks(y, order)
    axes.set(xlim=(0, 1.02), ylim=(-0.7, len(order) - 0.3), xlabel="average precision, test split")
    figure.legend(loc="outside upper center", ncols=1, frameon=False)
    return figure


@mpl.rc_context(_STYLE)
def embedding_map(groups: Sequence[Group]) -> Figure:
    """Plot a projection of the test clips' embeddings, one column per group, one row per class.

    All groups share one projection, see `embedding_map.py`, of the first seed of each group. The
    classes are those with the highest average precision in the first group; each row highlights
    the clips of one class.

    Parameters
    ----------
    groups
        Groups with the same test set.
    """
    maps = [_by_clip(each.results[0].embeddings()) for each in groups]
    points, kept = project([found["embedding"] for found in maps])
    first = groups[0].results[0]
    classes = first.about["data"]["classes"]
    chosen = [classes.index(name) for name in first.classes["pr_auc"].nlargest(_MAP_CLASSES).index]
    side = min(2.0, (_WIDTH - 0.3) / len(maps))
    size = (side * len(maps) + 0.3, side * len(chosen) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(chosen), len(maps), squeeze=False, sharex=True, sharey=True)
    for column, (each, found) in enumerate(zip(groups, maps, strict=True)):
        for row, number in enumerate(chosen):
            axes = panels[row, column]
            present = found["label"][kept, number] == 1
            axes.scatter(*points[column][~present].T, s=7, color="0.82", linewidths=0)
            axes.scatter(*points[column][present].T, s=10, color=_COLORS[1 + row], linewidths=0)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(True)
            axes.spines[:].set_color("0.8")
            if row == 0:
                axes.set_title(_wrapped(each.label, 56 // len(maps)), fontsize=8)
            if column == 0:
                axes.set_ylabel(_wrapped(classes[number], 20))
    return figure


@mpl.rc_context(_STYLE)
def confusions(groups: Sequence[Group]) -> Figure:
    """Plot the confusion matrix of each group, summed over its runs, in percent of each row.

    Parameters
    ----------
    groups
        Groups of a single-label task with the same classes.
    """
    classes = groups[0].results[0].about["data"]["classes"]
    side = max(2.4, 0.3 * len(classes)) + 1.4
    figure = Figure(figsize=(side, side * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        counts = np.sum([result.report["confusion"] for result in group.results], axis=0)
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        if len(classes) <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(percent):
                if value >= 0.5:
                    color = "white" if value > 60 else "black"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(_wrapped(group.label, 50), fontsize=9)
        axes.spines[:].set_visible(False)
    return figure


def _by_clip(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Sort arrays by clip id, since the order of the clips may differ between shards."""
    order = np.argsort(arrays["clip_id"])
    return {name: values[order] for name, values in arrays.items()}


@mpl.rc_context(_STYLE)
def ablation(points: pd.DataFrame) -> Figure:
    """Plot the test metric with bands against the fraction of the training clips (Figure 2).

    Parameters
    ----------
    points
        The table returned by `ablate.points`.
    """
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (method, found) in enumerate(points.groupby("method", sort=False)):
        percent = 100 * found["fraction"]
        style = _style(number)
        axes.fill_between(
            percent, found["low"], found["high"], color=style["color"], alpha=0.15, linewidth=0
        )
        axes.plot(percent, found["mean"], label=str(method), markersize=4, **style)
    axes.set_xlabel("training clips")
    axes.set_ylabel(f"test {METRICS[points['metric'].iloc[0]].title}")
    axes.set_xticks(sorted({100 * value for value in points["fraction"]}))
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="best")
    return figure


@mpl.rc_context(_STYLE)
def label_fractions(found: pd.DataFrame) -> Figure:
    """Plot each test metric of a study against the fraction of the labels, on a logarithmic axis.

    Parameters
    ----------
    found
        The table returned by `study_table.table`.
    """
    metrics = list(found["metric"].unique())
    figure = Figure(figsize=(_WIDTH, 3.0 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        rows = found[found["metric"] == metric]
        for number, (method, each) in enumerate(rows.groupby("method", sort=False)):
            percent, style = 100 * each["label_fraction"], _style(number)
            band = {"color": style["color"], "alpha": 0.12, "linewidth": 0}
            axes.fill_between(percent, each["low"], each["high"], **band)
            axes.plot(percent, each["mean"], label=str(method), markersize=4, **style)
        axes.set_ylabel(f"test {METRICS[metric].title}")
        axes.grid(alpha=0.3)
    panels[-1].set_xscale("log")
    panels[-1].set_xticks(sorted(100 * found["label_fraction"].unique()))
    panels[-1].xaxis.set_major_formatter("{x:g} %")
    panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].set_xlabel("training clips with labels")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=2
    )
    return figure
