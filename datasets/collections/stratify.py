"""Iterative stratification of groups of clips into splits.

K. Sechidis, G. Tsoumakas and I. Vlahavas, "On the stratification of multi-label data", ECML PKDD
2011: the class with the fewest groups left goes first, and each of its groups goes to the split
that lacks most clips of the class. In addition, a class in two groups or more gets a group in
training and in another split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def stratify(
    positives: npt.NDArray[np.int32],
    sizes: npt.NDArray[np.int32],
    shares: Sequence[float],
    present: npt.NDArray[np.int32],
    present_sizes: npt.NDArray[np.int32],
) -> npt.NDArray[np.intp]:
    """The split of every group, as an index into `shares`.

    Parameters
    ----------
    positives
        Shape (groups, classes): number of positive clips of each class in each group.
    sizes
        Shape (groups,): number of clips in each group. Ties go to earlier groups.
    shares
        Share of the clips that each split should have; the first split is training, and the
        others are in the order of their importance. A split with share 0 gets no groups.
    present, present_sizes
        Shapes (splits, classes) and (splits,): clips that the splits have already.
    """
    share = np.asarray(shares) / sum(shares)
    lacking = _scaled(share * (sizes.sum() + present_sizes.sum()) - present_sizes, sizes.sum())
    lacking_of = np.stack(
        [_targets(column, have, share) for column, have in zip(positives.T, present.T, strict=True)]
        or [np.zeros(len(share))],
        axis=1,
    )
    chosen = np.full(len(sizes), -1)
    closed = np.where(share > 0, 0.0, -np.inf)

    def place(group: int, lacks: npt.NDArray[np.float64]) -> None:
        best = max(range(len(share)), key=lambda split: (lacks[split], lacking[split]))
        chosen[group] = best
        lacking[best] -= sizes[group]
        if positives.shape[1]:
            lacking_of[best] -= positives[group]

    left = (positives > 0).sum(axis=0)
    while left.any():
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(left.dtype).max)))
        for group in np.flatnonzero((chosen < 0) & (positives[:, rarest] > 0)):
            place(int(group), lacking_of[:, rarest] + closed)
            left -= positives[group] > 0
    for group in np.flatnonzero(chosen < 0):
        place(int(group), lacking + closed)
    return chosen


def _targets(
    positives: npt.NDArray[np.int32], present: npt.NDArray[np.int32], share: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Clips of one class that each split should get, of which it has `present`."""
    total = positives.sum()
    groups = int((positives > 0).sum())
    if not groups:
        return np.zeros(len(share))
    targets = _scaled(share * (total + present.sum()) - present, total)
    spare = groups if present[0] else groups - 1  # without one for training
    for split in range(1, len(share)):
        if share[split] > 0 and not present[split]:
            targets[split] = max(targets[split], total / groups) if spare > 0 else 0
            spare -= 1
    targets[0] = total - targets[1:].sum()
    return targets


def _scaled(
    lacking: npt.NDArray[np.float64], total: np.signedinteger[Any]
) -> npt.NDArray[np.float64]:
    """The positive numbers, scaled to the sum `total`."""
    lacking = lacking.clip(0)
    scaled: npt.NDArray[np.float64] = lacking * (total / max(lacking.sum(), 1e-9))
    return scaled
