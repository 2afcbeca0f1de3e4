"""Metrics of predictions.

All metrics ignore unannotated entries, where the label mask is 0. Average precision, ROC-AUC
and accuracy are scikit-learn's; F1 is not, since scikit-learn's has no label mask. A class
whose score is undefined on its annotated clips is excluded from the macro mean, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    recall_score,
    roc_auc_score,
)

from featreg.datasets.base import FeatregError, Task

Label = npt.NDArray[np.uint8]
Probability = npt.NDArray[np.floating]
PerClip = npt.NDArray[np.int64]

THRESHOLD = 0.1
"""Probability above which a class counts as predicted (the paper, for DCASE 2017)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a set of predictions.

    It is called with labels, probabilities and label mask (1 where annotated), each of shape
    (clips, classes).

    Attributes
    ----------
    name
        Name in files and on the command line.
    title
        Name in tables and plots.
    function
        Function that computes the metric.
    tasks
        Tasks for which the metric is defined.
    higher_is_better
        Whether higher values are better.
    """

    name: str
    title: str
    function: Callable[[Label, Probability, Label], float]
    tasks: tuple[Task, ...] = get_args(Task)
    higher_is_better: bool = True

    def __call__(self, label: Label, probability: Probability, mask: Label) -> float:
        """Compute the metric.

        Raises
        ------
        FeatregError
            If the metric is a macro mean and undefined for all classes.
        """
        return self.function(label, probability, mask)

    def improves(self, value: float, best: float) -> bool:
        """Return whether `value` is strictly better than `best`."""
        return value > best if self.higher_is_better else value < best


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Counts and scores of one class; an undefined score is None.

    PR-AUC requires an annotated positive clip, and ROC-AUC also an annotated negative clip.
    Precision, recall and F1 require decisions, see `by_class`.
    """

    name: str
    annotated: int
    positives: int
    pr_auc: float | None
    roc_auc: float | None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of the evaluation of a set of predictions.

    Attributes
    ----------
    values
        Metric name -> value, for the metrics of the task.
    classes
        Counts and scores of each class.
    undefined
        Metric name -> names of the classes that are excluded from its macro mean.
    """

    values: Mapping[str, float]
    classes: Sequence[ClassScore]
    undefined: Mapping[str, tuple[str, ...]]


def evaluate(
    label: Label, probability: Probability, mask: Label, classes: Sequence[str], task: Task
) -> Evaluation:
    """Compute all metrics of the task and the scores of each class.

    Parameters
    ----------
    label, mask
        Shape (clips, classes), 0 or 1.
    probability
        Shape (clips, classes), in [0, 1].
    classes
        Names of the classes, in the order of the columns.
    task
        ``multi-label`` or ``single-label``.

    Raises
    ------
    FeatregError
        If a macro mean is undefined for all classes, or a probability is not finite.
    """
    if invalid := int((~np.isfinite(probability)).any(axis=1).sum()):
        raise FeatregError(
            f"the model's probabilities are not finite for {invalid} of {len(probability)} clips: "
            "training has diverged; train with a lower --lr, a lower --clip-norm or --precision "
            "float32"
        )
    rows = per_class(label, probability, mask, classes)
    return Evaluation(
        values={
            metric.name: metric(label, probability, mask)
            for metric in METRICS.values()
            if task in metric.tasks
        },
        classes=rows,
        undefined={
            "pr_auc": tuple(row.name for row in rows if row.pr_auc is None),
            "roc_auc": tuple(row.name for row in rows if row.roc_auc is None),
        },
    )


def per_class(
    label: Label, probability: Probability, mask: Label, classes: Sequence[str]
) -> list[ClassScore]:
    """Compute counts and scores of each class, on the clips where the class is annotated."""
    rows = []
    for column, name in enumerate(classes):
        known = mask[:, column] > 0
        y, p = label[known, column], probability[known, column]
        positives = int(y.sum())
        both = 0 < positives < len(y)
        rows.append(
            ClassScore(
                name=name,
                annotated=len(y),
                positives=positives,
                pr_auc=float(average_precision_score(y, p)) if positives else None,
                roc_auc=float(roc_auc_score(y, p)) if both else None,
            )
        )
    return rows


def predicted(probability: Probability, mask: Label) -> Label:
    """Return 1 for annotated entries whose probability is above `THRESHOLD`, else 0."""
    return ((probability > THRESHOLD) & (mask > 0)).astype(np.uint8)


def _pr_auc(label: Label, probability: Probability, mask: Label) -> float:
    """Compute the mean average precision over classes."""
    rows = per_class(label, probability, mask, [""] * label.shape[1])
    return _mean("macro PR-AUC", [row.pr_auc for row in rows if row.pr_auc is not None])


def _roc_auc(label: Label, probability: Probability, mask: Label) -> float:
    """Compute the mean area under the ROC curve over classes."""
    rows = per_class(label, probability, mask, [""] * label.shape[1])
    return _mean("macro ROC-AUC", [row.roc_auc for row in rows if row.roc_auc is not None])


def _mean(title: str, values: Sequence[float]) -> float:
    if not values:
        raise FeatregError(
            f"{title} is undefined for all classes: a class needs an annotated positive clip, and "
            "for ROC-AUC also a negative one; check the split, or use more of its clips"
        )
    return float(np.mean(values))


def hits(label: Label, probability: Probability, mask: Label) -> tuple[PerClip, PerClip]:
    """Count the true positives of each clip, and its positive labels plus predicted classes.

    F1 is twice the first divided by the second, for a clip or for sums over clips.

    Returns
    -------
    Two arrays of shape (clips,).
    """
    y, p = label * mask, predicted(probability, mask)
    return (y & p).sum(axis=1, dtype=int), (y + p).sum(axis=1, dtype=int)


def _samples_f1(label: Label, probability: Probability, mask: Label) -> float:
    """Compute the mean F1 over the clips with an annotation.

    The F1 of a clip without a positive label is 0.
    """
    hit, sizes = hits(label, probability, mask)
    return float((2 * hit / np.maximum(sizes, 1))[mask.any(axis=1)].mean())


def _micro_f1(label: Label, probability: Probability, mask: Label) -> float:
    """Compute F1 over all annotated entries."""
    hit, sizes = hits(label, probability, mask)
    return float(2 * hit.sum() / max(sizes.sum(), 1))


def _accuracy(label: Label, probability: Probability, mask: Label) -> float:
    """Compute the fraction of annotated clips whose most probable class is correct."""
    y = label * mask
    known = y.any(axis=1)
    return float(accuracy_score(y[known].argmax(axis=1), probability[known].argmax(axis=1)))


def _balanced_accuracy(label: Label, probability: Probability, mask: Label) -> float:
    """Compute the mean recall of the classes that occur."""
    y = label * mask
    known = y.any(axis=1)
    true, predicted = y[known].argmax(axis=1), probability[known].argmax(axis=1)
    return float(recall_score(true, predicted, labels=np.unique(true), average="macro"))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("pr_auc", "macro PR-AUC", _pr_auc),
        Metric("roc_auc", "macro ROC-AUC", _roc_auc),
        Metric("f1_samples", "samples F1", _samples_f1, ("multi-label",)),
        Metric("f1_micro", "micro F1", _micro_f1, ("multi-label",)),
        Metric("accuracy", "accuracy", _accuracy, ("single-label",)),
        Metric("balanced_accuracy", "balanced accuracy", _balanced_accuracy, ("single-label",)),
    )
}
"""Name of a metric -> the metric."""


def improves(name: str, value: float, best: float) -> bool:
    """Return whether a value of a metric, or of the regularizer (``reg_loss``), is better."""
    return value < best if name == "reg_loss" else METRICS[name].improves(value, best)
