"""The native shard: one feature of many clips, on the feature's own time grid.

Layout (n clips, all their frames concatenated)::

    clip_id      (n,)    utf-8
    offset       (n+1,)  int64     clip k has frames[offset[k]:offset[k+1]]
    frames       (frames, dim)     float32, float16, uint8 or int16;
                                   value = stored * frames.attrs["scale"] + frames.attrs["offset"]
    duration_s   (n,)    float64   decoded length in seconds
    fingerprint  (n,)    utf-8     fingerprint of the audio file when it was read
    failed/      clip_id, stage, reason, fingerprint   of the clips without frames

The root attributes are the fields of `NativeHeader`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..version import __version__
from .hdf5 import (
    VERSION,
    Appender,
    Array,
    create_shard,
    open_shard,
    read_array,
    read_json,
    read_strings,
    read_text,
    reading,
    write_array,
    write_attributes,
    write_strings,
)
from .seal import read_seal
from .timing import FrameTiming

FORMAT = "featreg-native"


@dataclass(frozen=True, slots=True)
class NativeHeader:
    """Metadata of a native shard.

    Attributes
    ----------
    dataset, feature
        Names of the dataset and of the feature.
    dim
        Number of dimensions of a frame.
    dtype
        NumPy's name of the type of the stored frames.
    scale, offset
        ``value = stored * scale + offset``.
    timing
        Time grid of the frames.
    sample_rate
        Sample rate of the extractor's input, in Hz.
    weights_sha256
        Hash of the weights; empty if there are none.
    settings
        All settings that affect the values, as JSON values.
    request
        The extractor as it was asked for, ``NAME=SCHEME:SOURCE`` or ``MODULE:CLASS``; empty, and
        not stored, for the features of featreg. It does not affect the values.
    """

    dataset: str
    feature: str
    dim: int
    dtype: str
    scale: float
    offset: float
    timing: FrameTiming
    sample_rate: int
    weights_sha256: str
    settings: Mapping[str, Any]
    request: str = field(default="", compare=False)

    def write(self, root: h5py.Group) -> None:
        """Store the header as root attributes."""
        about = {"format": FORMAT, "version": VERSION, "featreg_version": __version__}
        values = asdict(self) | {"settings": json.dumps(self.settings, sort_keys=True)}
        # The type, the scale and the offset are stored with the frames.
        for name in ("dtype", "scale", "offset", *(() if self.request else ("request",))):
            del values[name]
        write_attributes(root, **about, **values.pop("timing"), **values)

    @classmethod
    def read(cls, root: h5py.Group) -> NativeHeader:
        """The header that `write` stored."""
        attrs, frames = root.attrs, root["frames"]
        return cls(
            dataset=read_text(root, "dataset"),
            feature=read_text(root, "feature"),
            dim=int(attrs["dim"]),
            dtype=frames.dtype.name,
            scale=float(frames.attrs["scale"]),
            offset=float(frames.attrs["offset"]),
            timing=FrameTiming(
                float(attrs["hop_s"]), float(attrs["window_s"]), float(attrs["first_center_s"])
            ),
            sample_rate=int(attrs["sample_rate"]),
            weights_sha256=read_text(root, "weights_sha256"),
            settings=read_json(root, "settings"),
            request=read_text(root, "request", ""),
        )

    def difference(self, other: NativeHeader) -> str:
        """Description of the first difference from another header; empty if there is none."""
        for key in sorted({*self.settings, *other.settings}):
            if self.settings.get(key) != other.settings.get(key):
                return f"{key} was {self.settings.get(key)}, now {other.settings.get(key)}"
        if self.weights_sha256 != other.weights_sha256:
            return "the weights have changed"
        if self.dataset != other.dataset:
            return f"the shard belongs to the dataset {self.dataset}"
        same = self == other
        return "" if same else "the dimensions, the data type or the timing has changed"


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip without frames, with the stage and the reason of the failure."""

    clip_id: str
    stage: str
    reason: str
    fingerprint: str


class NativeWriter:
    """Writes one native shard; use as ``with native_writer(path, header) as shard``."""

    def __init__(self, file: h5py.File, header: NativeHeader) -> None:
        self._file = file
        self._frames = Appender(file, "frames", header.dtype, (header.dim,))
        write_attributes(self._frames.dataset, scale=header.scale, offset=header.offset)
        self._clips: list[tuple[str, str, float, int]] = []
        self._failures: list[Failure] = []
        header.write(file)

    def append(self, clip_id: str, frames: Array, duration_s: float, fingerprint: str) -> None:
        """Add a clip with its frames, shape (frames, dim)."""
        self._frames.append(frames)
        self._clips.append((clip_id, fingerprint, duration_s, len(frames)))

    def fail(self, failure: Failure) -> None:
        """Record a clip without frames."""
        self._failures.append(failure)

    def close(self) -> None:
        """Write the clip list, the offsets and the failures."""
        file = self._file
        self._frames.close()
        write_strings(file, "clip_id", [clip[0] for clip in self._clips])
        write_strings(file, "fingerprint", [clip[1] for clip in self._clips])
        write_array(file, "duration_s", np.array([clip[2] for clip in self._clips], np.float64))
        counts = np.array([0, *(clip[3] for clip in self._clips)], np.int64)
        write_array(file, "offset", np.cumsum(counts))
        failed = file.create_group("failed")
        for name in ("clip_id", "stage", "reason", "fingerprint"):
            write_strings(failed, name, [getattr(failure, name) for failure in self._failures])


@contextmanager
def native_writer(path: Path, header: NativeHeader) -> Iterator[NativeWriter]:
    """Open a writer; the shard appears under `path` only if the block succeeds."""
    with create_shard(path) as file:
        writer = NativeWriter(file, header)
        yield writer
        writer.close()


class NativeShard:
    """Reads one native shard; use as ``with native_shard(path) as shard``.

    Reading damaged content raises a `FeatregError` that names the file.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        with reading(file):
            self.header = NativeHeader.read(file)

    @property
    def content_sha256(self) -> str:
        """Hash of all bytes of the shard."""
        with reading(self._file):
            return read_seal(Path(self._file.filename))

    @cached_property
    def clip_ids(self) -> list[str]:
        """Ids of the clips, in the order of their frames."""
        return read_strings(self._file, "clip_id")

    @cached_property
    def durations(self) -> dict[str, float]:
        """Decoded length of each clip, in seconds."""
        seconds = read_array(self._file, "duration_s").tolist()
        return dict(zip(self.clip_ids, seconds, strict=True))

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each clip's audio file, including clips without frames."""
        known = dict(zip(self.clip_ids, read_strings(self._file, "fingerprint"), strict=True))
        return known | {failure.clip_id: failure.fingerprint for failure in self.failures}

    @cached_property
    def failures(self) -> list[Failure]:
        """Clips without frames."""
        columns = [
            read_strings(self._file, f"failed/{name}")
            for name in ("clip_id", "stage", "reason", "fingerprint")
        ]
        return [Failure(*row) for row in zip(*columns, strict=True)]

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        return read_array(self._file, "offset")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {clip_id: k for k, clip_id in enumerate(self.clip_ids)}

    def frames(self, clip_id: str) -> int:
        """Number of frames of a clip."""
        k = self._index[clip_id]
        return int(self._offsets[k + 1] - self._offsets[k])

    def stored(self, clip_id: str, first: int = 0, last: int | None = None) -> Array:
        """Stored frames `first` to `last` - 1 of a clip; shape (frames, dim)."""
        k = self._index[clip_id]
        start, stop = self._offsets[k : k + 2].tolist()
        if last is not None:
            stop = min(stop, start + last)
        return read_array(self._file, "frames", slice(start + first, stop))

    def values(
        self, clip_id: str, first: int = 0, last: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Frames `first` to `last` - 1 of a clip as float32 values; shape (frames, dim)."""
        values: npt.NDArray[np.float32] = self.stored(clip_id, first, last).astype(
            np.float32, copy=False
        )
        if (self.header.scale, self.header.offset) != (1.0, 0.0):
            values = values * np.float32(self.header.scale) + np.float32(self.header.offset)
        return values


@contextmanager
def native_shard(path: Path) -> Iterator[NativeShard]:
    """Open a reader.

    Raises
    ------
    FeatregError
        If `path` is not a readable native shard of this version.
    """
    with open_shard(path, FORMAT) as file:
        yield NativeShard(file)
