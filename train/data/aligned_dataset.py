"""What lies in a folder of aligned shards, and how a clip's audio and rows are read.

The index of every shard (clip ids, labels, offsets) is kept in memory; audio and rows
are read when they are asked for. `train/data/crops.py` cuts training crops and evaluation
chunks out of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import FeatregError, Task, UsageError
from featreg.datasets.shards.aligned import AlignedHeader, AlignedIndex, read_index
from featreg.datasets.shards.reader import ShardRows

IN_MEMORY_BYTES = 256 << 20
"""A split that takes no more is kept in memory, decompressed, from its first reading on."""

OPEN_SHARDS = 256
"""Shards that a reader keeps open: reopening costs more than reading a crop.

Each is an open file, and training and validation each have a reader: two at a time stay
below the 1,024 files that a process may usually open.
"""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Clips of one split, and where their audio and rows lie.

    Attributes
    ----------
    paths
        The shards.
    clip_id
        n names.
    label, label_mask
        Shape (n, classes), uint8.
    shard
        Shape (n,): index into `paths`.
    rows, audio
        Shape (n, 2), int64: first and last + 1 of the clip's rows, and of its samples.
    """

    paths: tuple[Path, ...]
    clip_id: npt.NDArray[np.str_]
    label: npt.NDArray[np.uint8]
    label_mask: npt.NDArray[np.uint8]
    shard: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    audio: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.clip_id)

    def take(self, chosen: Array) -> Clips:
        """The clips at the indices `chosen`, or where a mask is True."""
        kept = {item.name: getattr(self, item.name)[chosen] for item in fields(self)[1:]}
        return replace(self, **kept)

    def fraction(self, p: float, seed: int) -> Clips:
        """A random share of the clips, in their order.

        Of one seed, a smaller share lies inside every larger one.

        Parameters
        ----------
        p
            In (0, 1]; at least one clip is kept.
        seed
            Decides which clips come first.

        Raises
        ------
        UsageError
            If `p` is not in (0, 1].
        """
        if not 0 < p <= 1:
            raise UsageError(f"--fraction {p:g}: expected a share above 0 and up to 1 (0.1: 10 %)")
        order = np.random.default_rng((seed, 0)).permutation(len(self))
        return self.take(np.sort(order[: max(1, round(p * len(self)))]))


class AlignedSet:
    """The aligned shards of one folder, which must belong together.

    Parameters
    ----------
    folder
        Holds ``*.h5``.

    Raises
    ------
    FeatregError
        If there is no shard, or the shards differ in anything but their clips.
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

    @property
    def fingerprint(self) -> str:
        """Hash of the contents of all shards, in the order of their names."""
        parts = [f"{shard.path.name} {shard.content_sha256}\n" for shard in self._shards]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def features(self, wanted: Sequence[str] = ()) -> tuple[str, ...]:
        """The features called `wanted`; all of them if none is named.

        Raises
        ------
        UsageError
            If a name is not in the shards.
        """
        there = tuple(self.header.features)
        if len(set(wanted)) < len(wanted):
            raise UsageError(f"--features {'+'.join(wanted)}: name each feature once")
        for name in wanted:
            if name not in there:
                raise UsageError(
                    f"--features: {self.folder} holds no {name!r}; it holds {', '.join(there)} "
                    f"(add one with `prep extract --features {name}` and `prep align`)"
                )
        return tuple(wanted) or there

    def dims(self, names: Sequence[str]) -> dict[str, int]:
        """Values per row of each of the features `names`, in their order."""
        return {name: int(self.header.features[name]["dim"]) for name in names}

    def dim(self, names: Sequence[str]) -> int:
        """B_F of the features `names` side by side."""
        return sum(self.dims(names).values())

    @property
    def task(self) -> Task:
        """``multi-label`` or ``single-label``."""
        return cast(Task, self.header.task)

    @property
    def frame_samples(self) -> int:
        """Samples of audio that one row covers.

        Raises
        ------
        FeatregError
            If that is no whole number.
        """
        exact = self.header.resolution_s * self.header.audio_rate
        if abs(exact - round(exact)) > 1e-6 * exact:
            raise FeatregError(
                f"{self.folder}: a row of {self.header.resolution_s:g} s is {exact:g} samples at "
                f"{self.header.audio_rate} Hz, no whole number, so crops of audio and rows cannot "
                "cover the same time; align with another --resolution, 0.1 for example"
            )
        return round(exact)

    def split(self, name: str) -> Clips:
        """All clips of the split `name`, in the order of the shards.

        Raises
        ------
        FeatregError
            If it has none, or an annotated clip of a single-label task has not exactly
            one class.
        """
        shards = self._shards
        everything = Clips(
            paths=tuple(shard.path for shard in shards),
            clip_id=np.concatenate([np.array(shard.clip_id, dtype=np.str_) for shard in shards]),
            label=np.concatenate([shard.label for shard in shards]),
            label_mask=np.concatenate([shard.label_mask for shard in shards]),
            shard=np.repeat(np.arange(len(shards)), [len(shard.clip_id) for shard in shards]),
            rows=np.concatenate([_ranges(shard.offset) for shard in shards]),
            audio=np.concatenate([_ranges(shard.audio_offset) for shard in shards]),
        )
        splits = np.concatenate([np.array(shard.split, dtype=np.str_) for shard in shards])
        clips = everything.take(splits == name)
        if not len(clips):
            raise FeatregError(
                f"{self.folder}: no clip of the split {name!r}, only of "
                f"{', '.join(np.unique(splits))}; training needs train, valid and test"
            )
        wrong = clips.label_mask.any(axis=1) & (clips.label.sum(axis=1) != 1)
        if self.task == "single-label" and wrong.any():
            first = clips.clip_id[wrong][0]
            raise FeatregError(
                f"{self.folder}: clip {first} should have exactly one class in a single-label task"
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
                f"{first.path.name}; keep one kind of shard in a folder (`prep align` again)"
            )


def _short(value: object, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class ClipReader:
    """Reads audio and rows of clips, in any thread and any process.

    Files are opened where they are read, and do not travel with a pickle.

    Parameters
    ----------
    clips
        What there is to read.
    dims
        Features and their values per row, side by side in this order; may be empty.

    Attributes
    ----------
    frame_dim
        Values per row of all features together.
    in_memory
        Whether shards are kept in memory, whole, from their first reading on.
    """

    def __init__(self, clips: Clips, dims: Mapping[str, int]) -> None:
        self.clips, self.frame_dim = clips, sum(dims.values())
        self._dims = {f"features/{name}": dim for name, dim in dims.items()}
        self.in_memory = self._bytes() <= IN_MEMORY_BYTES
        self._forget()

    def _bytes(self) -> int:
        """What the shards take in memory, as far as their last chosen clips."""
        clips, shards = self.clips, len(self.clips.paths)
        ends = np.zeros((2, shards), np.int64)
        np.maximum.at(ends[0], clips.shard, clips.rows[:, 1])
        np.maximum.at(ends[1], clips.shard, clips.audio[:, 1])
        rows, samples = ends.sum(axis=1).tolist()
        return int(rows * self.frame_dim * 4 + samples * 2)

    def _forget(self) -> None:
        self._shards: OrderedDict[int, ShardRows] = OrderedDict()
        self._kept: dict[tuple[int, str], Array] = {}
        self._lock = threading.Lock()  # of `_shards`
        self._loading = threading.Lock()  # of `_kept`; who holds it may take the other

    def __getstate__(self) -> dict[str, Any]:
        names = ("clips", "frame_dim", "_dims", "in_memory")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def audio(self, clip: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Samples from `start` to `stop` of a clip; fewer where it ends before. In [-1, 1]."""
        first, last = self.clips.audio[clip]
        samples = np.empty(max(0, min(stop, int(last - first)) - start), np.float32)
        self.audio_into(clip, start, samples)
        return samples

    def frames(self, clip: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows from `start` to `stop` of a clip; shape (stop - start, frame_dim)."""
        rows = np.empty((stop - start, self.frame_dim), np.float32)
        self.rows_into(clip, start, rows)
        return rows

    def audio_into(self, clip: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Samples of a clip from `start` on, as many as `out` has room for. In [-1, 1]."""
        self._read(clip, "audio", int(self.clips.audio[clip, 0]) + start, out)
        out /= np.float32(32767)

    def rows_into(self, clip: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Rows of a clip from `start` on, as many as `out`, (rows, frame_dim), has room for."""
        column = 0
        for name, dim in self._dims.items():
            columns = out[:, column : column + dim]
            self._read(clip, name, int(self.clips.rows[clip, 0]) + start, columns)
            column += dim

    def _read(self, clip: int, name: str, start: int, out: Array) -> None:
        shard = int(self.clips.shard[clip])
        if not self.in_memory:
            self._open(shard).read(name, start, start + len(out), out)
            return
        with self._loading:  # others that want the same wait, and do not load it again
            if (shard, name) not in self._kept:
                self._kept[shard, name] = self._open(shard).whole(name)
            kept = self._kept[shard, name]
        out[:] = kept[start : start + len(out)]

    def _open(self, shard: int) -> ShardRows:
        with self._lock:
            if shard not in self._shards:
                if len(self._shards) >= OPEN_SHARDS:
                    self._shards.popitem(last=False)
                path = self.clips.paths[shard]
                self._shards[shard] = ShardRows(path, ("audio", *self._dims))
            self._shards.move_to_end(shard)
            return self._shards[shard]

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        """All rows, clip after clip."""
        for clip, (first, last) in enumerate(self.clips.rows):
            yield self.frames(clip, 0, int(last - first))
