"""The aligned shard: features, labels and audio for training, on one time grid.

Layout (n clips; a clip of d seconds has ceil(d / resolution) frames)::

    clip_id       (n,)           utf-8
    split         (n,)           utf-8
    fold          (n,)           int64    -1 for a clip without a fold
    label         (n, classes)   uint8
    label_mask    (n, classes)   uint8    0 where the class was not annotated
    duration_s    (n,)           float64
    offset        (n+1,)         int64    clip k has frames offset[k]:offset[k+1] of each feature
    features/NAME (frames, dim)  float32  frame j covers [j r, (j+1) r) seconds of its clip
    audio         (samples,)     int16    at audio_rate; value = stored / 32767
    audio_offset  (n+1,)         int64    clip k has audio[audio_offset[k]:audio_offset[k+1]]
    crc32/NAME    (blocks,)      uint32   for each block of bytes of the features and the audio

Features and audio are contiguous and uncompressed (`contiguous.py`); `reader.py` reads them.
The root attributes are the fields of `AlignedHeader`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from ..base import Clip
from ..version import __version__
from .contiguous import ContiguousWriter
from .hdf5 import (
    VERSION,
    create_shard,
    open_shard,
    read_json,
    read_strings,
    read_text,
    reading,
    write_array,
    write_attributes,
    write_strings,
)
from .seal import read_seal

FORMAT = "featreg-aligned"


@dataclass(frozen=True, slots=True)
class AlignedHeader:
    """Metadata that all clips of an aligned shard share.

    Attributes
    ----------
    dataset
        Name of the dataset.
    task
        ``multi-label`` or ``single-label``.
    classes
        Class names, in the order of the label columns.
    resolution_s
        Seconds per frame.
    mode
        How frames were resampled in time: ``repeat``, ``area`` or ``linear``.
    audio_rate
        Sample rate of `audio`, in Hz.
    features
        Metadata of each feature's native shards, in the order of the features:
        ``dim``, ``hop_s``, ``window_s``, ``first_center_s``, ``weights_sha256``,
        ``settings``, ``request`` for features that are not featreg's, and its column range
        ``columns`` in the combined feature.
    notes
        Remarks that are printed with every result.
    audio_settings
        The ``settings`` of the audio's native shards: the ``resampler``. Empty in older shards
        that do not store them.
    """

    dataset: str
    task: str
    classes: tuple[str, ...]
    resolution_s: float
    mode: str
    audio_rate: int
    features: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    audio_settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, root: h5py.Group) -> None:
        """Store the header as root attributes."""
        about = {"format": FORMAT, "version": VERSION, "featreg_version": __version__}
        write_attributes(root, **about, **asdict(self))

    @classmethod
    def read(cls, root: h5py.Group) -> AlignedHeader:
        """The header that `write` stored."""
        return cls(
            dataset=read_text(root, "dataset"),
            task=read_text(root, "task"),
            classes=tuple(read_json(root, "classes")),
            resolution_s=float(root.attrs["resolution_s"]),
            mode=read_text(root, "mode"),
            audio_rate=int(root.attrs["audio_rate"]),
            features=read_json(root, "features"),
            notes=tuple(read_json(root, "notes")),
            audio_settings=json.loads(read_text(root, "audio_settings", "{}")),
        )


class AlignedWriter:
    """Writes one aligned shard; use as ``with aligned_writer(path, header, sources) as shard``."""

    def __init__(
        self, file: h5py.File, header: AlignedHeader, spool: Callable[[], IO[bytes]]
    ) -> None:
        self._file = file
        self._features = {
            name: ContiguousWriter(spool(), np.float32, (int(feature["dim"]),))
            for name, feature in header.features.items()
        }
        self._audio = ContiguousWriter(spool(), np.int16)
        self._clips: list[tuple[Clip, float]] = []
        self._offset, self._audio_offset = [0], [0]
        header.write(file)

    def append(
        self,
        clip: Clip,
        features: Mapping[str, npt.NDArray[np.float32]],
        audio: npt.NDArray[np.int16],
        duration_s: float,
    ) -> None:
        """Add a clip: features of shape (frames, dim) and audio of shape (samples,)."""
        whole = {name: (frames,) for name, frames in features.items()}
        self.append_parts(clip, whole, (audio,), duration_s)

    def append_parts(
        self,
        clip: Clip,
        features: Mapping[str, Iterable[npt.NDArray[np.float32]]],
        audio: Iterable[npt.NDArray[np.int16]],
        duration_s: float,
    ) -> None:
        """Add a clip whose features and audio are given as consecutive parts."""
        for name, parts in features.items():
            for frames in parts:
                self._features[name].append(frames)
        for samples in audio:
            self._audio.append(samples)
        self._clips.append((clip, duration_s))
        ends = {writer.frames for writer in self._features.values()}
        if len(ends) != 1:
            raise ValueError(f"{clip.clip_id}: features of unequal length {sorted(ends)}")
        self._offset.append(ends.pop())
        self._audio_offset.append(self._audio.frames)

    def close(self) -> None:
        """Write all clips to the shard."""
        file, clips = self._file, [clip for clip, _ in self._clips]
        for name, feature in self._features.items():
            feature.close(file, f"features/{name}")
        self._audio.close(file, "audio")
        folds = [getattr(clip, "fold", None) for clip in clips]
        write_strings(file, "clip_id", [clip.clip_id for clip in clips])
        write_strings(file, "split", [clip.split for clip in clips])
        write_array(file, "fold", np.array([-1 if f is None else f for f in folds], np.int64))
        write_array(file, "label", np.stack([clip.label for clip in clips]))
        write_array(file, "label_mask", np.stack([clip.label_mask for clip in clips]))
        write_array(file, "duration_s", np.array([d for _, d in self._clips], np.float64))
        write_array(file, "offset", np.array(self._offset, np.int64))
        write_array(file, "audio_offset", np.array(self._audio_offset, np.int64))


@contextmanager
def aligned_writer(path: Path, header: AlignedHeader, sources: str) -> Iterator[AlignedWriter]:
    """Open a writer; the shard appears under `path` only if the block succeeds.

    `sources` is a fingerprint of all inputs of the shard: a later run with the same fingerprint
    skips the shard. Until the block ends, features and audio are kept in unnamed temporary files
    in the shard's folder.
    """
    with create_shard(path) as file, ExitStack() as stack:
        write_attributes(file, sources=sources)
        writer = AlignedWriter(
            file, header, lambda: stack.enter_context(TemporaryFile(dir=path.parent))
        )
        yield writer
        writer.close()


@dataclass(frozen=True, slots=True, eq=False)
class AlignedIndex:
    """Metadata and labels of an aligned shard, without features and audio.

    `offset` and `audio_offset` have shape (n+1,), `label` and `label_mask`
    (n, classes), the others (n,).
    """

    path: Path
    header: AlignedHeader
    sources: str
    content_sha256: str
    clip_id: tuple[str, ...]
    split: tuple[str, ...]
    fold: npt.NDArray[np.int64]
    label: npt.NDArray[np.uint8]
    label_mask: npt.NDArray[np.uint8]
    duration_s: npt.NDArray[np.float64]
    offset: npt.NDArray[np.int64]
    audio_offset: npt.NDArray[np.int64]


def read_index(path: Path) -> AlignedIndex:
    """The index of one aligned shard.

    Raises
    ------
    FeatregError
        If `path` is not a readable aligned shard of this version.
    """
    arrays = ("fold", "label", "label_mask", "duration_s", "offset", "audio_offset")
    with open_shard(path, FORMAT) as file, reading(file):
        return AlignedIndex(
            path=path,
            header=AlignedHeader.read(file),
            sources=read_text(file, "sources"),
            content_sha256=read_seal(path),
            clip_id=tuple(read_strings(file, "clip_id")),
            split=tuple(read_strings(file, "split")),
            **{name: file[name][()] for name in arrays},
        )
