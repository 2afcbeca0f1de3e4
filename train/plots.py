"""Pictures of runs, as PNG in a data address that a web page can hold."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from .compare import Group
from .metrics import METRICS

_MAP_CLIPS = 1500  # more points hide each other
_MAP_CLASSES = 3
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def _address(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _colour(number: int) -> str:
    return f"C{number % 10}"


@mpl.rc_context(_STYLE)
def learning_curves(groups: Sequence[Group]) -> str:
    """Training loss of the task and the validation metric against epochs.

    A thin line for each seed, a thick one for the mean of each group.
    """
    metric = groups[0].config.metric
    figure = Figure(figsize=(5.4, 5), layout="constrained")
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
                    axes.plot(curve, color=_colour(number), linewidth=0.6, alpha=0.5)
            mean = sum(curves) / len(curves)
            axes.plot(mean, color=_colour(number), linewidth=2, label=each.label)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    panels[1].set_xlabel("epoch")
    return _address(figure)


@mpl.rc_context(_STYLE)
def per_class(groups: Sequence[Group]) -> str:
    """Average precision of each class on the test split, mean over seeds, and chance.

    Chance is the share of positive clips. Classes without positive clips are left out.
    """
    means = [
        pd.concat([result.classes["pr_auc"] for result in each.results], axis=1).mean(axis=1)
        for each in groups
    ]
    order = means[0].dropna().sort_values().index
    counts = groups[0].results[0].classes
    chance = counts["positives"] / counts["annotated"]
    figure = Figure(figsize=(5.4, 1.2 + 0.24 * len(order)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(order))
    axes.hlines(y, 0, 1, color="0.93", zorder=0)
    axes.scatter(chance[order], y, marker="|", color="0.5", s=60, label="chance")
    for number, (each, mean) in enumerate(zip(groups, means, strict=True)):
        axes.scatter(mean[order], y, color=_colour(number), s=28, label=each.label, alpha=0.85)
    axes.set_yticks(y, order)
    axes.set(xlim=(0, 1.02), ylim=(-0.7, len(order) - 0.3), xlabel="average precision, test split")
    figure.legend(loc="outside upper center", ncols=1, frameon=False)
    return _address(figure)


@mpl.rc_context(_STYLE)
def embedding_map(groups: Sequence[Group]) -> str:
    """The test clips in the plane, one column per group and one row per class.

    t-SNE of the cosine distances between embeddings, of the first seed of each group,
    with equal settings for all. A row shows in colour the clips of one of the
    classes that the first group finds best.
    """
    maps = [each.results[0].embeddings() for each in groups]
    first = groups[0].results[0]
    classes = first.about["data"]["classes"]
    chosen = [classes.index(name) for name in first.classes["pr_auc"].nlargest(_MAP_CLASSES).index]
    figure = Figure(figsize=(2.4 * len(maps) + 0.6, 2.4 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), len(maps), squeeze=False)
    for column, (each, found) in enumerate(zip(groups, maps, strict=True)):
        points, kept = _project(found["embedding"])
        for row, number in enumerate(chosen):
            axes = panels[row, column]
            present = found["label"][kept, number] == 1
            axes.scatter(*points[~present].T, s=8, color="0.8", linewidths=0)
            axes.scatter(*points[present].T, s=14, color=_colour(row), linewidths=0)
            axes.set(xticks=[], yticks=[])
            axes.set_aspect("equal", adjustable="datalim")
            if row == 0:
                axes.set_title(textwrap.fill(each.label, 30), fontsize=8)
            if column == 0:
                axes.set_ylabel(classes[number])
    return _address(figure)


def _project(embedding: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Points of shape (kept, 2), and the indices of the clips that they stand for."""
    rng = np.random.default_rng(0)
    kept = np.sort(rng.permutation(len(embedding))[:_MAP_CLIPS])
    perplexity = min(30.0, max(2.0, (len(kept) - 1) / 4))
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0)
    return tsne.fit_transform(embedding[kept]), kept
