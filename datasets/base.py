"""What a clip and a dataset are, and the ways in which they can be wrong."""

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
    """The command was given what it cannot use; exit status 2."""


class ClipError(FeatregError):
    """One clip failed; the others go on. `reason` names what was expected and found."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, str]]:
        return ClipError, (self.stage, self.reason)  # it travels between processes


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
        Shape (classes,), uint8, 1 where somebody annotated the class. A class that
        nobody annotated is unknown, which is not the same as absent.
    start_s, duration_s
        The excerpt of the file, in seconds; `duration_s` None reads to the file's end.
    fold
        Number of the clip's fold in a published cross-validation, None if there are no folds.
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
    """Clips in a fixed order, with what their labels mean.

    Attributes
    ----------
    name
        Folder name in the working folder.
    classes
        Class names in the order of every label vector.
    clips
        All clips, in the order in which they are extracted.
    task
        ``multi-label`` (any number of classes a clip) or ``single-label``.
    content
        ``music`` or ``env``: which OpenL3 weights suit the material.
    known_bad
        Clip ids whose files are known to be unusable as published, left out of `clips`.
    notes
        Sentences that must stand beside every result (clips missing, for example).
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    task: Task = "multi-label"
    content: Content = "music"
    known_bad: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def label_vector(classes: Sequence[str], present: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Binary vector of shape (len(classes),), 1 for each class in `present`.

    Raises
    ------
    ValueError
        If `present` holds a name that is no class.
    """
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise ValueError(f"no such class: {', '.join(unknown)}")
    return np.array([name in present for name in classes], dtype=np.uint8)
