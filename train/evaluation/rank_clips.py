"""Rankings of clips to listen to: the most confident mistakes and the least certain clips.

In a single-label task, the predicted class is the most probable one. In a multi-label task, a
class is predicted if its probability reaches the class's threshold. Labels whose mask is 0 are
neither right nor wrong. Clips with equal scores are ranked by their id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from featreg.datasets.base import Task

from .metrics import Label, Probability

Ids = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Clips in the order of their scores, the highest first.

    Attributes
    ----------
    clip
        Indices of the clips, of shape (n,).
    score
        Scores, of shape (n,), in [0, 1].
    classes
        Index of the class that each score is about, of shape (n,); -1 for all classes.
    """

    clip: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]


def decisions(
    probability: Probability, task: Task, thresholds: Sequence[float]
) -> npt.NDArray[np.bool_]:
    """Return whether each class of each clip is predicted, of shape (clips, classes).

    Parameters
    ----------
    probability
        Shape (clips, classes), in [0, 1].
    task
        ``multi-label`` or ``single-label``.
    thresholds
        Threshold of each class; used in a multi-label task.
    """
    if task == "single-label":
        found: npt.NDArray[np.bool_] = np.eye(probability.shape[1], dtype=bool)[
            probability.argmax(axis=1)
        ]
        return found
    predicted: npt.NDArray[np.bool_] = probability >= np.asarray(thresholds)
    return predicted


def confidence(
    probability: Probability, task: Task, thresholds: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Return how sure each decision is, of shape (clips, classes), in [0, 1].

    In a single-label task, the probability of the class. In a multi-label task, the distance of
    the probability p from the threshold t, relative to the largest distance on its side:
    (p - t) / (1 - t) if the class is predicted, else (t - p) / t. A rare class, whose
    threshold is low, is thus not a confident decision merely because its probability is low.

    Parameters
    ----------
    probability, task, thresholds
        As in `decisions`.
    """
    p = probability.astype(np.float64)
    if task == "single-label":
        return p
    t = np.asarray(thresholds, np.float64)
    side = np.where(p >= t, 1 - t, t)
    relative: npt.NDArray[np.float64] = np.abs(p - t) / np.maximum(side, 1e-12)
    return relative


def false_positives(
    clip_id: Ids,
    label: Label,
    mask: Label,
    predicted: Label,
    confidence: npt.NDArray[np.float64],
) -> Ranked:
    """Rank the clips with a class that is predicted and absent, by the `confidence`.

    Each clip is ranked by the class with the highest confidence. In a single-label task, these
    are all clips whose class is not the predicted one.

    Parameters
    ----------
    clip_id
        Ids of the clips, of shape (clips,).
    label, mask, predicted
        Labels, label mask, and `decisions`, each of shape (clips, classes), 0 or 1.
    confidence
        Shape (clips, classes), in [0, 1].
    """
    return _worst_class(clip_id, (mask > 0) & (label == 0) & (predicted > 0), confidence)


def false_negatives(
    clip_id: Ids,
    label: Label,
    mask: Label,
    predicted: Label,
    confidence: npt.NDArray[np.float64],
) -> Ranked:
    """Rank the clips with a class that is present and not predicted, by the `confidence`.

    Parameters are those of `false_positives`.
    """
    return _worst_class(clip_id, (mask > 0) & (label > 0) & (predicted == 0), confidence)


def least_certain(clip_id: Ids, values: npt.NDArray[np.float64]) -> Ranked:
    """Rank clips by their `uncertainty`.

    Parameters
    ----------
    clip_id, values
        Ids of the clips and their uncertainty, each of shape (clips,).
    """
    return _ranked(clip_id, np.arange(len(clip_id)), values, np.full(len(clip_id), -1))


def uncertainty(probability: Probability, task: Task, mask: Label) -> npt.NDArray[np.float64]:
    """Return the entropy of each clip's prediction relative to the maximum, of shape (clips,).

    0 is certain and 1 is undecided. In a single-label task, the entropy of the distribution over
    the classes; in a multi-label task, the mean over the classes of the binary entropies. A clip
    whose prediction has a high entropy is also the one to label next by uncertainty sampling
    (Settles 2009, "Active learning literature survey", section 3.1); the mean over classes is
    from Esuli and Sebastiani 2009, "Active learning strategies for multi-label text
    classification".

    Parameters
    ----------
    probability
        Shape (clips, classes), in [0, 1].
    task
        ``multi-label`` or ``single-label``.
    mask
        Label mask of shape (clips, classes): in a multi-label task, the mean is over the classes
        with 1, of which each clip must have one.
    """
    p = probability.astype(np.float64).clip(0, 1)
    if task == "single-label":
        total: npt.NDArray[np.float64] = entr(p).sum(axis=1) / np.log(max(2, p.shape[1]))
        return total.clip(0, 1)
    binary = (entr(p) + entr(1 - p)) / np.log(2)
    mean: npt.NDArray[np.float64] = np.average(binary, axis=1, weights=mask > 0)
    return mean


def _worst_class(
    clip_id: Ids, wrong: npt.NDArray[np.bool_], confidence: npt.NDArray[np.float64]
) -> Ranked:
    scores = np.where(wrong, confidence, -1.0)
    classes = scores.argmax(axis=1)
    return _ranked(clip_id, np.flatnonzero(wrong.any(axis=1)), scores.max(axis=1), classes)


def _ranked(
    clip_id: Ids,
    clips: npt.NDArray[np.int64],
    score: npt.NDArray[np.float64],
    classes: npt.NDArray[np.int64],
) -> Ranked:
    order = clips[np.lexsort((clip_id[clips], -score[clips]))]
    return Ranked(order, score[order].astype(np.float64), classes[order])
