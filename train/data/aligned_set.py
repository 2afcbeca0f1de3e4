"""The clips in a folder of aligned shards, with their labels, splits and offsets.

The index of every shard (clip ids, labels, offsets) is kept in memory. `clip_reader.py` reads
audio and frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import FeatregError, Task, UsageError
from featreg.datasets.shards.aligned import AlignedHeader, AlignedIndex, read_index

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Clips of an aligned set, with the position of their audio and frames in the shards.

    Attributes
    ----------
    paths
        Paths of the shards.
    clip_id
        Clip ids, of shape (n,).
    label, label_mask
        Labels and label mask, of shape (n, classes), uint8.
    shard
        Index into `paths`, of shape (n,).
    split, fold
        Split (``train``, ``valid`` or ``test``) and fold (-1 without one), each of shape (n,).
    frames, audio
        Start and stop index of the clip's frames and of its samples in the shard, each of
        shape (n, 2), int64.
    """

    paths: tuple[Path, ...]
    clip_id: npt.NDArray[np.str_]
    label: npt.NDArray[np.uint8]
    label_mask: npt.NDArray[np.uint8]
    shard: npt.NDArray[np.int64]
    split: npt.NDArray[np.str_]
    fold: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    audio: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.clip_id)

    def take(self, chosen: Array) -> Clips:
        """Return the clips selected by `chosen`, an array of indices or a boolean mask."""
        kept = {item.name: getattr(self, item.name)[chosen] for item in fields(self)[1:]}
        return replace(self, **kept)

    def fraction(self, p: float, seed: int) -> Clips:
        """Return a random fraction of the clips, in their order.

        With the same seed, a smaller fraction is a subset of every larger one.

        Parameters
        ----------
        p
            Fraction of the clips, in (0, 1]; at least one clip is kept.
        seed
            Seed of the selection.

        Raises
        ------
        UsageError
            If `p` is not in (0, 1].
        """
        if not 0 < p <= 1:
            raise UsageError(f"--fraction {p:g}: expected a number in (0, 1], such as 0.1 for 10 %")
        order = np.random.default_rng((seed, 0)).permutation(len(self))
        return self.take(np.sort(order[: max(1, round(p * len(self)))]))


class AlignedSet:
    """The aligned shards of one folder, which have the same features, classes and settings.

    Parameters
    ----------
    folder
        Folder with ``*.h5`` files.

    Raises
    ------
    FeatregError
        If there is no shard, or the headers of the shards differ.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(folder.glob("*.h5"))
        if not paths:
            raise FeatregError(f"{folder}: no aligned shards; run `prep align` first")
        self._shards = [read_index(path) for path in paths]
        self.header: AlignedHeader = self._shards[0].header
        for shard in self._shards[1:]:
            _check_same(self._shards[0], shard)
        self._made_folds = ""

    def divide(self, clips: Clips, made_folds: str, notes: tuple[str, ...]) -> None:
        """Use other splits and folds than those in the shards.

        Parameters
        ----------
        clips
            The clips with their splits and folds.
        made_folds
            A hash of the folds if they are not in the shards, to become part of `fingerprint`.
        notes
            Remarks that are printed with every result.
        """
        self.clips, self._made_folds = clips, made_folds
        self.header = replace(self.header, notes=(*self.header.notes, *notes))

    @property
    def fingerprint(self) -> str:
        """Return a hash of the contents of all shards, and of the folds that were made."""
        parts = [f"{shard.path.name} {shard.content_sha256}\n" for shard in self._shards]
        parts.append(self._made_folds)
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def features(self, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the names `wanted` after checking them; all features if it is empty.

        Raises
        ------
        UsageError
            If a name is not in the shards, or is given twice.
        """
        there = tuple(self.header.features)
        if len(set(wanted)) < len(wanted):
            raise UsageError(f"--features {'+'.join(wanted)}: give each feature only once")
        for name in wanted:
            if name not in there:
                raise UsageError(
                    f"--features: {name!r} not found in {self.folder}, which contains "
                    f"{', '.join(there)}; add it with `prep extract --features {name}` and "
                    "`prep align`"
                )
        return tuple(wanted) or there

    def dims(self, names: Sequence[str]) -> dict[str, int]:
        """Return the dimensions of each of the features `names`, in their order."""
        return {name: int(self.header.features[name]["dim"]) for name in names}

    def dim(self, names: Sequence[str]) -> int:
        """Return B_F, the total dimensions of the concatenated features `names`."""
        return sum(self.dims(names).values())

    @property
    def task(self) -> Task:
        """Return ``multi-label`` or ``single-label``."""
        return cast(Task, self.header.task)

    @property
    def frame_samples(self) -> int:
        """Return the hop of the aligned frames, in samples of audio.

        Raises
        ------
        FeatregError
            If the hop is not a whole number of samples.
        """
        exact = self.header.resolution_s * self.header.audio_rate
        if abs(exact - round(exact)) > 1e-6 * exact:
            raise FeatregError(
                f"{self.folder}: a frame of {self.header.resolution_s:g} s is {exact:g} samples "
                f"at {self.header.audio_rate} Hz, which is not a whole number, so crops of audio "
                "and features cannot cover the same time; align with another --resolution, such "
                "as 0.1"
            )
        return round(exact)

    @cached_property
    def clips(self) -> Clips:
        """Return all clips, in the order of the shards."""
        shards = self._shards
        return Clips(
            paths=tuple(shard.path for shard in shards),
            clip_id=np.concatenate([np.array(shard.clip_id, dtype=np.str_) for shard in shards]),
            label=np.concatenate([shard.label for shard in shards]),
            label_mask=np.concatenate([shard.label_mask for shard in shards]),
            shard=np.repeat(np.arange(len(shards)), [len(shard.clip_id) for shard in shards]),
            split=np.concatenate([np.array(shard.split, dtype=np.str_) for shard in shards]),
            fold=np.concatenate([shard.fold for shard in shards]),
            frames=np.concatenate([_ranges(shard.offset) for shard in shards]),
            audio=np.concatenate([_ranges(shard.audio_offset) for shard in shards]),
        )

    def split(self, name: str) -> Clips:
        """Return all clips of the split `name`, in the order of the shards.

        Raises
        ------
        FeatregError
            If the split is empty, or an annotated clip of a single-label task does not have
            exactly one class.
        """
        clips = self.clips.take(self.clips.split == name)
        if not len(clips):
            raise FeatregError(
                f"{self.folder}: no clips in the split {name!r}, only in "
                f"{', '.join(np.unique(self.clips.split))}; training needs the splits train, valid "
                "and test"
            )
        wrong = clips.label_mask.any(axis=1) & (clips.label.sum(axis=1) != 1)
        if self.task == "single-label" and wrong.any():
            first = clips.clip_id[wrong][0]
            raise FeatregError(
                f"{self.folder}: clip {first} does not have exactly one class, as a single-label "
                "task requires"
            )
        return clips


def _ranges(offset: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.stack([offset[:-1], offset[1:]], axis=1)


def _check_same(first: AlignedIndex, other: AlignedIndex) -> None:
    for item in fields(AlignedHeader):
        expected, found = (getattr(shard.header, item.name) for shard in (first, other))
        if expected != found:
            raise FeatregError(
                f"{other.path}: {item.name} is {_short(found)}, but {_short(expected)} in "
                f"{first.path.name}; all shards of a folder must agree: run `prep align` again"
            )


def _short(value: object, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
