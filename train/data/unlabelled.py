"""Training clips with and without labels: which labels are used, and the order of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import UsageError

from .aligned_set import Clips

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TrainingClips:
    """The training clips of a run.

    Attributes
    ----------
    clips
        The clips; those with labels come first.
    labelled
        Number of clips with labels.
    """

    clips: Clips
    labelled: int

    @property
    def unlabelled(self) -> int:
        """Return the number of clips without labels."""
        return len(self.clips) - self.labelled

    def with_labels(self) -> TrainingClips:
        """Return the clips with labels only."""
        return TrainingClips(self.clips.take(np.arange(self.labelled)), self.labelled)


def training_clips(clips: Clips, label_fraction: float, seed: int) -> TrainingClips:
    """Keep the labels of a fraction of the labelled clips, and the audio of all clips.

    A clip is labelled if at least one of its labels is annotated. The selection is stratified,
    see `stratified_order`. With the same seed, a smaller fraction is a subset of every larger one.

    Parameters
    ----------
    clips
        Clips of the training split.
    label_fraction
        Fraction of the labelled clips whose labels are kept, in (0, 1]; at least one is kept.
    seed
        Seed of the selection.

    Raises
    ------
    UsageError
        If `label_fraction` is not in (0, 1].
    """
    if not 0 < label_fraction <= 1:
        raise UsageError(
            f"--label-fraction {label_fraction:g}: expected a number in (0, 1], such as 0.1"
        )
    labelled = np.flatnonzero(clips.label_mask.any(axis=1))
    if label_fraction < 1 and len(labelled):
        label = clips.label[labelled] * clips.label_mask[labelled]
        order = stratified_order(label, seed)
        labelled = np.sort(labelled[order[: max(1, round(label_fraction * len(labelled)))]])
    hidden = np.setdiff1d(np.arange(len(clips)), labelled)
    masked, label = clips.label_mask.copy(), clips.label.copy()
    masked[hidden] = label[hidden] = 0
    clips = replace(clips, label=label, label_mask=masked)
    return TrainingClips(clips.take(np.concatenate([labelled, hidden])), len(labelled))


def stratified_order(label: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.int64]:
    """Return an order of clips in which each class is spread as evenly as possible.

    Each position gets a random clip of the class of which the smallest share was placed before
    it (of equal shares, the rarest class). The first clips therefore contain every class, and the
    first p percent of the clips contain about p percent of the clips of each class. Clips
    without a class count as a class of their own. (As in Sechidis et al. 2011, "On the
    stratification of multi-label data", but as one order for all fractions.)

    Parameters
    ----------
    label
        Labels, 0 or 1, of shape (clips, classes).
    seed
        Seed of the random choice.

    Returns
    -------
    Indices of the clips, of shape (clips,).
    """
    classes = np.column_stack([label > 0, ~(label > 0).any(axis=1)])
    totals = classes.sum(axis=0)
    rarest = np.argsort(totals, kind="stable")
    classes = classes[:, rarest[totals[rarest] > 0]]
    totals = classes.sum(axis=0)
    shuffled = np.random.default_rng((seed, 4)).permutation(len(classes))
    waiting = [list(shuffled[classes[shuffled, k]][::-1]) for k in range(len(totals))]
    placed, left = np.zeros(len(totals)), totals.copy()
    done = np.zeros(len(classes), bool)
    order = np.empty(len(classes), np.int64)
    for place in range(len(order)):
        each = int(np.where(left > 0, placed / totals, np.inf).argmin())
        while done[clip := waiting[each].pop()]:
            pass
        done[clip], order[place] = True, clip
        placed += classes[clip]
        left -= classes[clip]
    return order


class UnlabelledCycle:
    """Endless sequence of the unlabelled clips, in which every pass has another random order.

    Parameters
    ----------
    clips
        The training clips, of which at least one is unlabelled.
    per_batch
        Number of unlabelled clips per batch and device.
    seed
        Seed of the order, together with the pass.
    """

    def __init__(self, clips: TrainingClips, per_batch: int, seed: int) -> None:
        self._first, self._count = clips.labelled, clips.unlabelled
        self._per_batch, self._seed = per_batch, seed
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def keys(self, batch: int) -> list[Key]:
        """Return the keys of a batch's unlabelled crops: (pass, index of the clip).

        Parameters
        ----------
        batch
            Number of the batch since the start of training, over all devices.
        """
        first = batch * self._per_batch
        places = (divmod(first + k, self._count) for k in range(self._per_batch))
        return [(cycle, self._clip(cycle, place)) for cycle, place in places]

    def _clip(self, cycle: int, place: int) -> int:
        if self._order[0] != cycle:
            rng = np.random.default_rng((self._seed, 5, cycle))
            self._order = cycle, rng.permutation(self._count)
        return self._first + int(self._order[1][place])
