"""Pictures of runs, narrow enough for a phone and for a column of print."""

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
from matplotlib.ticker import MaxNLocator

from ..evaluation.metrics import METRICS
from ..experiments.compare import Group
from .embedding_map import project

_WIDTH = 4.6  # inches: on a phone of 390 pixels letters of 9 points are still 10 pixels high
_MAP_CLASSES = 3
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # letters stay letters, which a reader can search
    "svg.hashsalt": "featreg",  # else names inside were drawn by chance
}
# Okabe and Ito's colours, which colour-blind readers tell apart, the darker first.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX"


def address(figure: Figure) -> str:
    """The figure as PNG in a data address, which a web page can hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@mpl.rc_context(_STYLE)
def save(figure: Figure, path: Path, kind: str) -> None:
    """The figure as a file, ``png`` or ``svg``; equal figures are equal files."""
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(path, format=kind, dpi=200, bbox_inches="tight", metadata=metadata)


def _look(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _wrapped(label: str, width: int) -> str:
    """Lines of a label, broken at spaces and behind the + of combined features."""
    mark = "\0"  # of a break that has no space
    lines = textwrap.wrap(label.replace("+", f"+{mark} "), width, break_on_hyphens=False)
    return "\n".join(lines).replace(f"{mark} ", "").replace(mark, "")


@mpl.rc_context(_STYLE)
def learning_curves(groups: Sequence[Group]) -> Figure:
    """Training loss of the task and the validation metric against epochs.

    A thin line for each seed, a thick one for the mean of each group.
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
                    axes.plot(curve, color=_colour(number), linewidth=0.5, alpha=0.35)
            mean = pd.concat(curves, axis=1).mean(axis=1)
            axes.plot(mean, color=_colour(number), linewidth=1.8, label=each.label)
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
    """Average precision of each class on the test split, mean over seeds, and chance.

    Chance is the share of positive clips. Classes without positive clips are left out.

    Parameters
    ----------
    groups
        Of one test set.
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
        look = _look(number)
        axes.scatter(mean[order], y, s=22, label=each.label, alpha=0.8, linewidths=0, **look)
    axes.set_yticks(y, order)
    axes.set(xlim=(0, 1.02), ylim=(-0.7, len(order) - 0.3), xlabel="average precision, test split")
    figure.legend(loc="outside upper center", ncols=1, frameon=False)
    return figure


@mpl.rc_context(_STYLE)
def embedding_map(groups: Sequence[Group]) -> Figure:
    """The test clips in the plane, one column per group and one row per class.

    One projection for all, see `projection.py`; the first seed of each group. A row
    shows in colour the clips of one of the classes that the first group finds best.

    Parameters
    ----------
    groups
        Of one test set.
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
            axes.scatter(*points[column][present].T, s=10, color=_COLOURS[1 + row], linewidths=0)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(True)
            axes.spines[:].set_color("0.8")
            if row == 0:
                axes.set_title(_wrapped(each.label, 56 // len(maps)), fontsize=8)
            if column == 0:
                axes.set_ylabel(_wrapped(classes[number], 20))
    return figure


def _by_clip(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The same rows, in the order of clip ids: shards of one test set may have others."""
    order = np.argsort(arrays["clip_id"])
    return {name: values[order] for name, values in arrays.items()}


@mpl.rc_context(_STYLE)
def ablation(points: pd.DataFrame) -> Figure:
    """Figure 2: the test metric against the share of the training clips, with bands.

    Parameters
    ----------
    points
        What `ablate.points` gives.
    """
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (method, found) in enumerate(points.groupby("method", sort=False)):
        percent = 100 * found["fraction"]
        look = _look(number)
        axes.fill_between(
            percent, found["low"], found["high"], color=look["color"], alpha=0.15, linewidth=0
        )
        axes.plot(percent, found["mean"], label=str(method), markersize=4, **look)
    axes.set_xlabel("training clips")
    axes.set_ylabel(f"test {METRICS[points['metric'].iloc[0]].title}")
    axes.set_xticks(sorted({100 * value for value in points["fraction"]}))
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="best")
    return figure
