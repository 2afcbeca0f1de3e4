"""Clips, datasets and the exceptions of featreg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

Task = Literal["multi-label", "single-label"]
Content = Literal["music", "env"]


class FeatregError(Exception):
    """A failure that the user can understand and fix; exit status 1."""


class UsageError(FeatregError):
    """An option or argument is invalid; exit status 2."""


class ClipError(FeatregError):
    """One clip failed; processing continues with the others.

    Parameters
    ----------
    stage
        Processing stage that failed, for example ``decode``.
    reason
        What was expected and what was found.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, ...]]:
        return ClipError, (self.stage, self.reason)  # to be pickled between processes


class DecodeError(ClipError):
    """The audio of a clip cannot be decoded."""

    def __init__(self, reason: str) -> None:
        super().__init__("decode", reason)

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, ...]]:
        return type(self), (self.reason,)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One excerpt of audio with its annotation.

    Attributes
    ----------
    clip_id
        Unique within the dataset.
    path
        The audio file.
    split
        ``train``, ``valid`` or ``test``.
    label
        Shape (classes,), uint8, 1 where the class is present.
    label_mask
        Shape (classes,), uint8, 1 where the class was annotated. A class that was not
        annotated is unknown, which is not the same as absent.
    start_s, duration_s
        Start and duration of the excerpt within the file, in seconds; with `duration_s` None,
        it extends to the end of the file.
    fold
        Number of the clip's fold in a published cross-validation; None without folds.
    """

    clip_id: str
    path: Path
    split: Split
    label: npt.NDArray[np.uint8]
    label_mask: npt.NDArray[np.uint8]
    start_s: float = 0.0
    duration_s: float | None = None
    fold: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Clips in a fixed order, with their classes and task.

    Attributes
    ----------
    name
        Name of the dataset, and of its folder in the working folder.
    classes
        Class names in the order of every label vector.
    clips
        All clips, in the order in which they are extracted.
    task
        ``multi-label`` (any number of classes per clip) or ``single-label``.
    content
        ``music`` or ``env`` (environmental sounds); selects the OpenL3 weights.
    known_bad
        Ids of clips whose published files are known to be unusable; they are not in `clips`.
    notes
        Remarks that are printed with every result, for example about missing clips.
    understood
        Lines that say how a file of the user's own clips was read; printed by `prep extract` and
        `prep datasets`, not stored.
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    task: Task = "multi-label"
    content: Content = "music"
    known_bad: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    understood: tuple[str, ...] = field(default=())


def label_vector(classes: Sequence[str], present: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Binary vector of shape (len(classes),), 1 for each class in `present`.

    Raises
    ------
    ValueError
        If `present` contains an unknown class.
    """
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise ValueError(f"unknown class: {', '.join(unknown)}")
    return np.array([name in present for name in classes], dtype=np.uint8)
