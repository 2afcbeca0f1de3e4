"""Bootstrap confidence intervals of metrics, by resampling the clips of the test set."""

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
    groups: npt.NDArray[Any] | None = None,
) -> dict[str, Interval]:
    """Compute confidence intervals of all metrics of the task by resampling clips or groups.

    All metrics are computed on the same draws. A class without positives in a draw is excluded
    from that draw's macro mean. The intervals reflect the variation between test sets, not the
    variation between training runs.

    Parameters
    ----------
    label, mask
        Shape (clips, classes), 0 or 1.
    probability
        Shape (clips, classes), in [0, 1].
    task
        ``multi-label`` or ``single-label``.
    measured
        Metric name -> value on the clips themselves, as returned by `evaluate`.
    resamples
        Number of draws.
    level
        Confidence level.
    seed
        Seed of the draws.
    groups
        Group of each clip, such as its source, of shape (clips,). Whole groups are drawn, since
        clips of one group are not independent. None for clips that are.

    Returns
    -------
    Metric name -> interval.
    """
    values = resampled(label, probability, mask, draws(len(label), resamples, seed, groups), task)
    return {name: interval(each, measured[name], level) for name, each in values.items()}


def draws(
    clips: int, resamples: int = 1000, seed: int = 0, groups: npt.NDArray[Any] | None = None
) -> Counts:
    """Draw as many clips, or groups, as there are with replacement, and count each clip's draws.

    Returns
    -------
    Counts of shape (clips, resamples).
    """
    if groups is not None:
        names, group = np.unique(groups, return_inverse=True)
        return np.ascontiguousarray(draws(len(names), resamples, seed)[group])
    counts = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), resamples)
    return np.ascontiguousarray(counts.T, np.int32)


def interval(values: Values, measured: float, level: float = 0.95) -> Interval:
    """Compute the quantiles of a metric over draws, shifted so that their mean is `measured`.

    The shift corrects a bias: a draw contains clips twice, which raises its average precision.

    Parameters
    ----------
    values
        Values of the metric, of shape (resamples,); NaN is ignored.
    measured
        The metric on the clips themselves.
    level
        Confidence level.

    Returns
    -------
    The interval, clipped to [0, 1].
    """
    shifted = values + (measured - np.nanmean(values))
    low, high = np.nanquantile(shifted, [(1 - level) / 2, (1 + level) / 2]).clip(0, 1)
    return Interval(float(low), float(high))


def resampled(
    label: Label, probability: Probability, mask: Label, counts: Counts, task: Task
) -> dict[str, Values]:
    """Compute all metrics of the task for each draw, equal to `METRICS` on the drawn clips.

    Parameters
    ----------
    label, probability, mask, task
        As in `bootstrap`.
    counts
        Number of times that each clip was drawn, of shape (clips, resamples).

    Returns
    -------
    Metric name -> values of shape (resamples,); NaN for draws where the metric is undefined.
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
    """Compute average precision and ROC-AUC of one class for each draw; NaN if undefined.

    The clips are sorted once for all draws, since resampling does not change the order of the
    scores. Both metrics are sums over groups of tied scores, to which only groups with a
    positive clip contribute.
    """
    known = np.flatnonzero(mask)
    order = known[np.argsort(-probability[known], kind="stable")]
    y, score = label[order].astype(bool), probability[order]
    last = np.flatnonzero(np.diff(score, append=-1))  # clip of each group
    positives = np.cumsum(y)[last]  # clips up to the end of each group
    hit = np.flatnonzero(np.diff(positives, prepend=0))  # groups with a positive clip

    drawn = _cumulative(counts[order])  # row i: draws of the first i clips
    true = _cumulative(counts[order[y]])
    P, N = true[-1].astype(float), drawn[-1] - true[-1]
    end = drawn[last[hit] + 1]
    begin = drawn[np.concatenate(([0], last + 1))[hit]]
    true_end = true[positives[hit]]
    true_begin = np.concatenate((true[:1], true_end[:-1]))
    false = (end - true_end + begin - true_begin) / 2  # false positives; tied ones count half
    gained = true_end - true_begin
    with np.errstate(invalid="ignore", divide="ignore"):
        ap = (gained * (true_end / np.maximum(end, 1))).sum(axis=0) / P
        auc = (gained * (N - false)).sum(axis=0) / (P * N)
    return ap, auc


def _cumulative(counts: Counts) -> Counts:
    """Return the sums of the first 0, 1, ... rows."""
    sums = np.zeros((len(counts) + 1, counts.shape[1]), counts.dtype)
    np.cumsum(counts, axis=0, out=sums[1:])
    return sums


def _defined_mean(columns: list[Values]) -> Values:
    """Compute the mean over the classes with a value, for each draw."""
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


def _balanced_accuracy(
    label: Label, probability: Probability, mask: Label, counts: Counts
) -> Values:
    right = label.argmax(axis=1) == probability.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        recalls = [(right * y) @ counts / (y.astype(np.int64) @ counts) for y in label.T]
    return _defined_mean(recalls)


def _clip_mean(value: npt.NDArray[Any], needed: Label, counts: Counts) -> Values:
    """Compute the mean of `value` over the drawn clips with at least one 1 in `needed`."""
    known = np.asarray(needed.any(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray((value * known) @ counts / (known @ counts))


_BY_CLIP: Mapping[str, Callable[[Label, Probability, Label, Counts], Values]] = {
    "f1_samples": _samples_f1,
    "f1_micro": _micro_f1,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
}
"""Metrics that are sums over clips; unannotated entries of their labels are 0."""
