"""How good predictions are.

Label masks hold throughout: an entry that nobody annotated is neither right nor wrong.
scikit-learn computes all but F1, which it has for one column in another meaning; ranking on
the clips where a class is annotated. A class whose score does not exist there is left out of
the macro mean, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from featreg.datasets.base import FeatregError, Task

Label = npt.NDArray[np.uint8]
Probability = npt.NDArray[np.floating]
PerClip = npt.NDArray[np.int64]

THRESHOLD = 0.1
"""A class is predicted where its probability is above this (the paper, DCASE 2017)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number for a set of predictions.

    Called with labels and probabilities of shape (clips, classes) and a mask of the same
    shape, 1 where annotated.

    Attributes
    ----------
    name
        In files and on the command line.
    title
        In tables and plots.
    function
        Computes it.
    tasks
        The kinds of task that it has a meaning for.
    higher_is_better
        Its direction.
    """

    name: str
    title: str
    function: Callable[[Label, Probability, Label], float]
    tasks: tuple[Task, ...] = get_args(Task)
    higher_is_better: bool = True

    def __call__(self, label: Label, probability: Probability, mask: Label) -> float:
        """Its value.

        Raises
        ------
        FeatregError
            If it is a macro mean and exists for no class.
        """
        return self.function(label, probability, mask)

    def improves(self, value: float, best: float) -> bool:
        """Whether `value` is strictly better than `best`."""
        return value > best if self.higher_is_better else value < best


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class's row in a table; a score that does not exist is None.

    PR-AUC needs an annotated positive clip, ROC-AUC an annotated negative one as well.
    """

    name: str
    annotated: int
    positives: int
    pr_auc: float | None
    roc_auc: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that is known of a set of predictions.

    Attributes
    ----------
    values
        Metric name -> value, for the metrics of the task.
    classes
        One row per class.
    undefined
        Metric name -> the classes that its macro mean leaves out.
    """

    values: Mapping[str, float]
    classes: Sequence[ClassScore]
    undefined: Mapping[str, tuple[str, ...]]


def evaluate(
    label: Label, probability: Probability, mask: Label, classes: Sequence[str], task: Task
) -> Evaluation:
    """Every metric of the task and the table per class.

    Parameters
    ----------
    label, mask
        Shape (clips, classes), 0 or 1.
    probability
        Shape (clips, classes), in [0, 1].
    classes
        Names, in the order of the columns.
    task
        ``multi-label`` or ``single-label``.

    Raises
    ------
    FeatregError
        If a macro mean exists for no class, or a probability is no number.
    """
    if lost := int((~np.isfinite(probability)).any(axis=1).sum()):
        raise FeatregError(
            f"the model's probabilities for {lost} of {len(probability)} clips are no numbers: its "
            "weights have grown beyond all bounds; train with a lower --lr, --clip-norm or "
            "--precision float32"
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
    """Counts and ranking scores of each class, on the clips where it is annotated."""
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
    """1 where an annotated class is predicted, that is above `THRESHOLD`."""
    return ((probability > THRESHOLD) & (mask > 0)).astype(np.uint8)


def _pr_auc(label: Label, probability: Probability, mask: Label) -> float:
    """Mean over classes of the average precision."""
    rows = per_class(label, probability, mask, [""] * label.shape[1])
    return _mean("macro PR-AUC", [row.pr_auc for row in rows if row.pr_auc is not None])


def _roc_auc(label: Label, probability: Probability, mask: Label) -> float:
    """Mean over classes of the area under the ROC curve."""
    rows = per_class(label, probability, mask, [""] * label.shape[1])
    return _mean("macro ROC-AUC", [row.roc_auc for row in rows if row.roc_auc is not None])


def _mean(title: str, values: Sequence[float]) -> float:
    if not values:
        raise FeatregError(
            f"{title} exists for none of the classes: each needs an annotated positive clip, "
            "for ROC-AUC also a negative one; check the split or take more of it"
        )
    return float(np.mean(values))


def hits(label: Label, probability: Probability, mask: Label) -> tuple[PerClip, PerClip]:
    """Of each clip: its classes that are predicted, and the sizes of both sets together.

    F1 is twice the first over the second, of a clip or summed over clips.

    Returns
    -------
    Two arrays of shape (clips,).
    """
    y, p = label * mask, predicted(probability, mask)
    return (y & p).sum(axis=1, dtype=int), (y + p).sum(axis=1, dtype=int)


def _samples_f1(label: Label, probability: Probability, mask: Label) -> float:
    """Mean over clips of each clip's F1; 0 for a clip without a positive label.

    Clips on which nothing is annotated do not count.
    """
    hit, sizes = hits(label, probability, mask)
    return float((2 * hit / np.maximum(sizes, 1))[mask.any(axis=1)].mean())


def _micro_f1(label: Label, probability: Probability, mask: Label) -> float:
    """F1 over all annotated entries at once."""
    hit, sizes = hits(label, probability, mask)
    return float(2 * hit.sum() / max(sizes.sum(), 1))


def _accuracy(label: Label, probability: Probability, mask: Label) -> float:
    """Share of the clips with a known class whose most probable class it is."""
    y = label * mask
    known = y.any(axis=1)
    return float(accuracy_score(y[known].argmax(axis=1), probability[known].argmax(axis=1)))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("pr_auc", "macro PR-AUC", _pr_auc),
        Metric("roc_auc", "macro ROC-AUC", _roc_auc),
        Metric("f1_samples", "samples F1", _samples_f1, ("multi-label",)),
        Metric("f1_micro", "micro F1", _micro_f1, ("multi-label",)),
        Metric("accuracy", "accuracy", _accuracy, ("single-label",)),
    )
}
"""Name -> metric."""
