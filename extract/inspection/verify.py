"""Verification of shards: whether they are unchanged since they were written, and consistent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from featreg.datasets.base import SPLITS, FeatregError
from featreg.datasets.shards import aligned, native
from featreg.datasets.shards.contiguous import checksum_name
from featreg.datasets.shards.hdf5 import (
    Array,
    datasets_of,
)
from featreg.datasets.shards.reader import ShardReader
from featreg.datasets.shards.seal import is_sealed

from ..alignment.resample_frames import target_frames
from ..extractors.custom import likely_frames
from ..extractors.registry import FEATURES
from .describe import layout_of

# Bytes read at a time, which bounds the memory.
_BLOCK_BYTES = 1 << 22


def faults(path: Path) -> list[str]:
    """Errors of the shard at `path`, one line each; empty if there are none.

    The checks cover checksums, the hash of all bytes, offsets, counts, time grids, labels, and
    values that are not finite.
    """
    try:
        check = _native_faults if layout_of(path) == native.FORMAT else _aligned_faults
        with h5py.File(path, "r", locking=False) as file:
            found = list(_stored_faults(file)) or list(check(path, file))
        if not found and not is_sealed(path):
            found = ["bytes have changed since it was written: their hash differs"]
    except FeatregError as error:
        return [str(error)]
    except Exception as error:  # damaged files can cause any exception
        found = [f"cannot be read: {error}"]
    return [f"{path}: {fault}" for fault in found]


def _stored_faults(file: h5py.File) -> Iterator[str]:
    """Datasets without checksums, with wrong checksums, or with values that are not finite."""
    for name, dataset in datasets_of(file).items():
        if dataset.size and not dataset.fletcher32 and checksum_name(name) not in file:
            yield f"{name} has no checksums"
        infinite: list[int] = []
        rows = 0
        try:
            for block in _blocks(dataset):
                if block.dtype.kind == "f":
                    finite = np.isfinite(block.reshape(len(block), -1)).all(axis=1)
                    infinite += [rows + row for row in np.flatnonzero(~finite).tolist()]
                rows += len(block)
        except OSError as error:
            yield f"{name} does not match its checksum ({error})"
            continue
        if infinite:
            more = f" and {len(infinite) - 1} more" if len(infinite) > 1 else ""
            yield f"{name} is not finite in frame {infinite[0]}{more}"


def _blocks(dataset: h5py.Dataset) -> Iterator[Array]:
    rows = max(1, _BLOCK_BYTES // max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])))
    for start in range(0, len(dataset), rows):
        yield dataset[start : start + rows]


def _offset_faults(name: str, offset: Array, clips: int, total: int) -> Iterator[str]:
    if len(offset) != clips + 1:
        yield f"{name} has {len(offset)} entries, expected {clips + 1} for {clips} clips"
    elif offset[0] != 0 or offset[-1] != total or (np.diff(offset) < 1).any():
        yield f"{name} does not increase from 0 to {total} with at least 1 frame per clip"


def _native_faults(path: Path, file: h5py.File) -> Iterator[str]:
    with native.native_shard(path) as shard:
        clips, frames = shard.clip_ids, file["frames"]
        if len(set(clips)) != len(clips):
            yield "a clip occurs twice"
        offset = file["offset"][()]
        unequal = list(_offset_faults("offset", offset, len(clips), len(frames)))
        yield from unequal
        if frames.shape[1] != shard.header.dim:
            yield f"expected {shard.header.dim} dimensions per frame, found {frames.shape[1]}"
        if len(shard.durations) != len(clips) or not all(
            math.isfinite(seconds) and seconds > 0 for seconds in shard.durations.values()
        ):
            yield "duration_s is not above 0 for every clip"
        elif not unequal:
            yield from _count_faults(shard, np.diff(offset))


def _count_faults(shard: native.NativeShard, counts: npt.NDArray[np.int64]) -> Iterator[str]:
    """Errors of clips whose number of frames does not match their length and the time grid.

    The exact number depends on the extractor. For all built-in features, the window of the last
    frame overlaps the clip, and less than a hop of the clip remains after it. One sample of
    tolerance allows for resampling.
    """
    timing = shard.header.timing
    own, sample_s = shard.header.feature in FEATURES, 1 / shard.header.sample_rate
    odd = []
    for (clip_id, seconds), count in zip(shard.durations.items(), counts.tolist(), strict=True):
        if own:
            rest = seconds - timing.first_center_s - (count - 1) * timing.hop_s
            half = timing.window_s / 2
            # A clip shorter than a window has one frame.
            fits = rest - half < timing.hop_s + sample_s and (count == 1 or rest + half > -sample_s)
        else:
            expected, tolerance = likely_frames(timing, seconds)
            fits = abs(count - expected) <= tolerance + sample_s / timing.hop_s
        if not fits:
            odd.append(f"{clip_id} has {count} frames for {seconds:.2f} s")
    if odd:
        more = f"; the same for {len(odd) - 1} more" if len(odd) > 1 else ""
        yield f"{odd[0]}, which does not match a hop of {timing.hop_s:g} s{more}"


def _aligned_faults(path: Path, file: h5py.File) -> Iterator[str]:
    index = aligned.read_index(path)
    clips, header = len(index.clip_id), index.header
    shape = (clips, len(header.classes))
    if len(set(index.clip_id)) != clips:
        yield "a clip is there twice"
    for name, values in (("label", index.label), ("label_mask", index.label_mask)):
        if values.shape != shape or not np.isin(values, (0, 1)).all():
            yield f"{name} is not 0 or 1 in the shape {shape}"
    if (index.label > index.label_mask).any():
        yield "a class is present that was not annotated"
    if not set(index.split) <= set(SPLITS):
        yield f"unknown splits {sorted(set(index.split) - set(SPLITS))}"
    counts = [target_frames(seconds, header.resolution_s) for seconds in index.duration_s]
    if not np.array_equal(np.diff(index.offset), counts):
        yield f"expected one frame per {header.resolution_s} s of every clip"
    samples = np.rint(index.duration_s * header.audio_rate)
    # Resampling may round a length either way.
    if np.abs(np.diff(index.audio_offset) - samples).max(initial=0) > 1:
        yield f"expected {header.audio_rate} samples per second of every clip"
    yield from _offset_faults("audio_offset", index.audio_offset, clips, len(file["audio"]))
    ShardReader(path, ("audio", *(f"features/{name}" for name in header.features))).verify()
    for name, feature in header.features.items():
        values = file[f"features/{name}"]
        if values.shape[1] != feature["dim"]:
            yield f"{name}: expected {feature['dim']} dimensions, found {values.shape[1]}"
        yield from _offset_faults(f"offset of {name}", index.offset, clips, len(values))
