"""How far metrics would scatter if other clips had been drawn for the test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import Task

from .metrics import METRICS, Label, Probability, hits

Counts = npt.NDArray[np.int32]
Values = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap(
    label: Label,
    probability: Probability,
    mask: Label,
    task: Task,
    measured: Mapping[str, float],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of every metric of the task, resampling clips: `interval` of `draws`.

    All metrics see the same draws. A class without positives in a draw is left out of
    that draw's macro mean. The intervals hold the scatter of the test set only, not that
    of training.

    Parameters
    ----------
    label, mask
        Shape (clips, classes), 0 or 1.
    probability
        Shape (clips, classes), in [0, 1].
    task
        ``multi-label`` or ``single-label``.
    measured
        Every metric of the task on all clips, each once: what `evaluate` gives.
    resamples
        Number of draws.
    level
        Probability mass between the two ends.
    seed
        Of the draws.

    Returns
    -------
    Metric name -> interval.
    """
    values = resampled(label, probability, mask, draws(len(label), resamples, seed), task)
    return {name: interval(each, measured[name], level) for name, each in values.items()}


def draws(clips: int, resamples: int = 1000, seed: int = 0) -> Counts:
    """How often each clip is drawn, with replacement, as many as there are.

    Returns
    -------
    Shape (clips, resamples).
    """
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), resamples)
    return np.ascontiguousarray(counts.T, np.int32)


def interval(values: Values, measured: float, level: float = 0.95) -> Interval:
    """Quantiles of a metric over draws, shifted so that the draws' mean is what was measured.

    A draw holds clips twice, which lifts its average precision.

    Parameters
    ----------
    values
        Shape (resamples,); NaN does not count.
    measured
        The metric on all clips, each once.
    level
        Probability mass between the two ends, which stay within [0, 1], as metrics do.
    """
    shifted = values + (measured - np.nanmean(values))
    low, high = np.nanquantile(shifted, [(1 - level) / 2, (1 + level) / 2]).clip(0, 1)
    return Interval(float(low), float(high))


def resampled(
    label: Label, probability: Probability, mask: Label, counts: Counts, task: Task
) -> dict[str, Values]:
    """Every metric of the task, for each draw; equal to `METRICS` on the drawn clips.

    Parameters
    ----------
    counts
        Shape (clips, resamples): how often each clip was drawn.

    Returns
    -------
    Metric name -> shape (resamples,); NaN for draws from which it cannot be computed.
    """
    columns = [
        _ranking(label[:, k], probability[:, k], mask[:, k], counts) for k in range(label.shape[1])
    ]
    values = {
        "pr_auc": _defined_mean([ap for ap, _ in columns]),
        "roc_auc": _defined_mean([auc for _, auc in columns]),
    }
    for name, function in _BY_CLIP.items():
        if task in METRICS[name].tasks:
            values[name] = function(label * mask, probability, mask, counts)
    return values


def _ranking(
    label: Label, probability: Probability, mask: Label, counts: Counts
) -> tuple[Values, Values]:
    """Average precision and ROC-AUC of one class for each draw; NaN where undefined.

    One sort serves all draws, since drawing does not change the order of the scores.
    Both are sums over groups of tied scores, and only groups with a positive clip add
    to them.
    """
    known = np.flatnonzero(mask)
    order = known[np.argsort(-probability[known], kind="stable")]
    y, score = label[order].astype(bool), probability[order]
    last = np.flatnonzero(np.diff(score, append=-1))  # clip of each group
    positives = np.cumsum(y)[last]  # clips up to the end of each group
    hit = np.flatnonzero(np.diff(positives, prepend=0))  # groups with a positive clip

    drawn = _cumulative(counts[order])  # row i: among the first i clips
    true = _cumulative(counts[order[y]])
    P, N = true[-1].astype(float), drawn[-1] - true[-1]
    end = drawn[last[hit] + 1]
    begin = drawn[np.concatenate(([0], last + 1))[hit]]
    true_end = true[positives[hit]]
    true_begin = np.concatenate((true[:1], true_end[:-1]))
    false = (end - true_end + begin - true_begin) / 2  # ranked above; of the tied ones, half
    gained = true_end - true_begin
    with np.errstate(invalid="ignore", divide="ignore"):
        ap = (gained * (true_end / np.maximum(end, 1))).sum(axis=0) / P
        auc = (gained * (N - false)).sum(axis=0) / (P * N)
    return ap, auc


def _cumulative(counts: Counts) -> Counts:
    """Sums of the first 0, 1, ... rows."""
    sums = np.zeros((len(counts) + 1, counts.shape[1]), counts.dtype)
    np.cumsum(counts, axis=0, out=sums[1:])
    return sums


def _defined_mean(columns: list[Values]) -> Values:
    """Mean over classes, for each draw over those with a value."""
    values = np.array(columns)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / np.isfinite(values).sum(axis=0))


def _samples_f1(label: Label, probability: Probability, mask: Label, counts: Counts) -> Values:
    hit, sizes = hits(label, probability, mask)
    return _clip_mean(2 * hit / np.maximum(sizes, 1), mask, counts)


def _micro_f1(label: Label, probability: Probability, mask: Label, counts: Counts) -> Values:
    hit, sizes = hits(label, probability, mask)
    return np.asarray(2 * (hit @ counts) / np.maximum(sizes @ counts, 1))


def _accuracy(label: Label, probability: Probability, mask: Label, counts: Counts) -> Values:
    right = label.argmax(axis=1) == probability.argmax(axis=1)
    return _clip_mean(right, label, counts)


def _clip_mean(value: npt.NDArray[Any], needed: Label, counts: Counts) -> Values:
    """Mean of `value` over the drawn clips that have any 1 in `needed`."""
    known = np.asarray(needed.any(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray((value * known) @ counts / (known @ counts))


_BY_CLIP: Mapping[str, Callable[[Label, Probability, Label, Counts], Values]] = {
    "f1_samples": _samples_f1,
    "f1_micro": _micro_f1,
    "accuracy": _accuracy,
}
"""Metrics that add up over clips; labels come with unannotated entries at 0."""
