"""The figures of a report, each with its caption, and the numbers of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..experiments.compare import Group
from . import plots
from .print_table import UNKNOWN
from .section import Section

MOST_GROUPS = 6
"""Maximum number of groups in a plot; tables contain all groups."""

MOST_ROWS = 12
"""Number of classes above which the table of classes is collapsed."""

MOST_MAPS = 3
"""Maximum number of groups in the embedding map."""

MOST_MATRICES = 3
"""Maximum number of groups with a confusion matrix."""


def figures(groups: Sequence[Group], shown: Sequence[Group], stem: Path) -> list[Section]:
    """Return the figures of the groups with the same test set as the first group.

    Each is also written as a file, such as ``STEM-curves.pdf``.
    """
    alike = [each for each in shown if each.test_set == shown[0].test_set]
    drawn = alike[:MOST_GROUPS]
    trained = [each for each in drawn if not each.config.probe]
    apart = " Groups with another test set are not shown." if len(alike) < len(shown) else ""
    maps = [each for each in trained if each.config.reg != "none" or each is trained[0]]
    omitted = [
        each.label + ("" if each.test_set == drawn[0].test_set else ": another test set")
        for each in groups
        if each not in drawn
    ]
    many = [_how_many(len(drawn), len(groups))] if omitted else []
    curves = Section(
        "Learning curves",
        many,
        image=plots.publish(plots.learning_curves(trained), stem, "curves") if trained else "",
        caption="Thick lines are means over seeds, thin lines are single seeds." + apart,
        left_out=omitted,
    )
    return [
        *([curves] if trained else []),
        Section(
            "Average precision per class",
            image=plots.publish(plots.per_class(drawn), stem, "classes"),
            caption="Average precision on the test split, mean over seeds. Chance is the fraction "
            "of clips with the class." + apart,
        ),
        _per_class(alike),
        *_confusions(drawn, apart, stem),
        *([_maps(maps[:MOST_MAPS], apart, stem)] if maps else []),
    ]


def _maps(groups: Sequence[Group], apart: str, stem: Path) -> Section:
    return Section(
        "Embeddings with and without regularization",
        image=plots.publish(plots.embedding_map(groups), stem, "embeddings"),
        caption="Projections of the time-averaged embeddings of the test clips, for the first "
        "seed of each method. Each row highlights the clips of one class; the classes are the "
        "three with the highest average precision in the first method. The embeddings of each "
        "model are rotated onto those of the first model, which preserves the cosines within a "
        "model, and then projected together (t-SNE of cosine distances), so that positions "
        "are comparable between maps. Distances between remote clusters are not meaningful."
        + apart,
    )


def _confusions(groups: Sequence[Group], apart: str, stem: Path) -> list[Section]:
    """Return the confusion matrices of a single-label task; nothing for another task."""
    if "confusion" not in groups[0].results[0].report:
        return []
    few = groups[:MOST_MATRICES]
    only = f" The first {len(few)} groups are shown." if len(few) < len(groups) else ""
    section = Section(
        "Confusion of classes",
        image=plots.publish(plots.confusions(few), stem, "confusion"),
        caption="Percentage of the test clips of a class (row) for which a class (column) is the "
        "most probable one, over all seeds." + only + apart,
    )
    return [section]


def _how_many(drawn: int, total: int) -> str:
    return (
        f"The figures show {drawn} of {total} groups of runs, and the maps at most {MOST_MAPS}. "
        f"To select others, name up to {MOST_GROUPS} groups of runs: `train compare RUN...`."
    )


def _per_class(groups: Sequence[Group]) -> Section:
    """Return the numbers of the figure as a table of classes (rows) and groups (columns)."""
    counts = groups[0].positives
    cells = {
        each.label: [
            f"{value:.3f}" if value == value else UNKNOWN  # NaN
            for value in each.precision[counts.index]
        ]
        for each in groups
    }
    found = pd.DataFrame({"class": counts.index, "test clips": counts.to_numpy(), **cells})
    text = (
        "Average precision on the test split, mean over seeds. Test clips are the clips with the "
        f"class; {UNKNOWN} means that there are none."
    )
    folded = f"All {len(found)} classes" if len(found) > MOST_ROWS else ""
    return Section("Average precision per class, in numbers", [text], found, folded=folded)
