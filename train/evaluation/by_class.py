"""Precision, recall and F1 of each class, the confusion matrix, and thresholds.

In a single-label task, the predicted class is the most probable one. In a multi-label task, a
class is predicted if its probability reaches the class's threshold: the one with the highest F1 on
the validation split. All functions ignore entries whose label mask is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from featreg.datasets.base import Task

from .metrics import ClassScore, Label, Probability

UNCALIBRATED = 0.5
"""Threshold of a class without a positive validation clip."""


def best_thresholds(label: Label, probability: Probability, mask: Label) -> list[float]:
    """Return the threshold of each class with the highest F1.

    The threshold is halfway between the lowest predicted and the highest rejected probability. Of
    several thresholds with the same F1, the lowest is used.

    Parameters
    ----------
    label, mask
        Shape (clips, classes), 0 or 1.
    probability
        Shape (clips, classes), in [0, 1].
    """
    found = []
    for y, p, known in zip(label.T, probability.T, mask.T > 0, strict=True):
        if not y[known].any():
            found.append(UNCALIBRATED)
            continue
        precision, recall, cuts = precision_recall_curve(y[known], p[known])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        below = cuts[best - 1] if best else 0.0
        found.append(float(cuts[best] + below) / 2)
    return found


def with_decisions(
    rows: Sequence[ClassScore],
    label: Label,
    probability: Probability,
    mask: Label,
    task: Task,
    thresholds: Sequence[float] | None = None,
) -> list[ClassScore]:
    """Return the scores of the classes with precision, recall and F1; 0 where one is undefined.

    Parameters
    ----------
    rows
        The scores, one for each class.
    label, probability, mask
        As in `best_thresholds`.
    task
        ``multi-label`` or ``single-label``.
    thresholds
        Threshold of each class in a multi-label task; if None, there are no decisions, and the
        scores are returned as they are.
    """
    if task == "single-label":
        true, predicted = decided(label, probability, mask)
        found = precision_recall_fscore_support(
            true, predicted, labels=range(len(rows)), zero_division=0.0
        )
        scores = np.stack(found[:3], axis=1)
    elif thresholds is None:
        return list(rows)
    else:
        columns = zip(label.T, probability.T, mask.T > 0, thresholds, strict=True)
        scores = np.array(
            [
                precision_recall_fscore_support(
                    y[known], p[known] >= cut, average="binary", zero_division=0.0
                )[:3]
                for y, p, known, cut in columns
            ],
            dtype=float,
        )
    return [
        replace(row, precision=float(p), recall=float(r), f1=float(f))
        for row, (p, r, f) in zip(rows, scores, strict=True)
    ]


def confusion(label: Label, probability: Probability, mask: Label) -> list[list[int]]:
    """Return the confusion matrix of a single-label task: true classes (rows), predicted ones."""
    true, predicted = decided(label, probability, mask)
    matrix = confusion_matrix(true, predicted, labels=range(label.shape[1]))
    counts: list[list[int]] = matrix.tolist()
    return counts


def decided(
    label: Label, probability: Probability, mask: Label
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the true and the most probable class of each annotated clip."""
    y = label * mask
    known = y.any(axis=1)
    return y[known].argmax(axis=1), probability[known].argmax(axis=1)
