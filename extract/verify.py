"""Whether shards are what they were when they were written, and agree with themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from featreg.datasets import aligned, native
from featreg.datasets.base import SPLITS, FeatregError
from featreg.datasets.shards import content_sha256

from .align import target_rows

# Values looked at together, for NaN: bounds the memory.
_BLOCK = 1 << 22


def faults(path: Path) -> list[str]:
    """What is wrong with the shard at `path`, a line each; empty if nothing is.

    Reads every byte: checksums, the hash of the whole content, offsets, counts,
    clock, labels, and values that are not finite.
    """
    try:
        with h5py.File(path, "r") as file:
            layout = file.attrs.get("format")
            if layout not in (native.FORMAT, aligned.FORMAT):
                return [f"{path}: an HDF5 file, but no shard of featreg's"]
            found = list(_stored_faults(file))
            if not found:
                check = _native_faults if layout == native.FORMAT else _aligned_faults
                found = list(check(path, file))
    except (OSError, KeyError, ValueError, FeatregError) as error:
        found = [f"cannot be read: {error}"]
    return [f"{path}: {fault}" for fault in found]


def _stored_faults(file: h5py.File) -> Iterator[str]:
    """Datasets whose checksums fail or whose content is not what was written."""
    datasets: list[str] = []
    file.visititems(
        lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None
    )
    broken = False
    for name in datasets:
        if not file[name].fletcher32:
            yield f"{name} has no checksums"
        try:
            for _ in _blocks(file[name]):
                pass
        except OSError as error:
            broken = True
            yield f"{name} does not match its checksum ({error})"
    if not broken and content_sha256(file) != file.attrs["content_sha256"]:
        yield "the content is not what was written: its hash differs"


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    rows = max(1, _BLOCK // max(1, int(np.prod(dataset.shape[1:]))))
    for start in range(0, len(dataset), rows):
        yield dataset[start : start + rows]


def _offset_faults(name: str, offset: np.ndarray, clips: int, total: int) -> Iterator[str]:
    if len(offset) != clips + 1:
        yield f"{name} has {len(offset)} entries, expected {clips + 1} for {clips} clips"
    elif offset[0] != 0 or offset[-1] != total or (np.diff(offset) < 1).any():
        yield f"{name} does not rise from 0 to {total}, a row or more for every clip"


def _finite_faults(name: str, dataset: h5py.Dataset) -> Iterator[str]:
    start = 0
    for block in _blocks(dataset):
        bad = np.flatnonzero(~np.isfinite(block.reshape(len(block), -1)).all(axis=1))
        if len(bad):
            yield f"{name} is not finite in row {start + bad[0]} and {len(bad) - 1} more"
            return
        start += len(block)


def _native_faults(path: Path, file: h5py.File) -> Iterator[str]:
    with native.native_shard(path) as shard:
        clips, frames = shard.clip_ids, file["frames"]
        if len(set(clips)) != len(clips):
            yield "a clip is there twice"
        yield from _offset_faults("offset", file["offset"][()], len(clips), len(frames))
        if frames.shape[1] != shard.header.dim:
            yield f"frames have {frames.shape[1]} columns, the header says {shard.header.dim}"
        if len(shard.durations) != len(clips) or not all(
            math.isfinite(seconds) and seconds > 0 for seconds in shard.durations.values()
        ):
            yield "duration_s is not above 0 for every clip"
        yield from _finite_faults("frames", frames)


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
        yield "a label is present that nobody annotated"
    if not set(index.split) <= set(SPLITS):
        yield f"unknown splits {sorted(set(index.split) - set(SPLITS))}"
    rows = [target_rows(seconds, header.resolution_s) for seconds in index.duration_s]
    if not np.array_equal(np.diff(index.offset), rows):
        yield f"clips do not have one row for every {header.resolution_s} s"
    samples = np.rint(index.duration_s * header.audio_rate)
    # Resampling may round a length either way.
    if np.abs(np.diff(index.audio_offset) - samples).max(initial=0) > 1:
        yield f"clips do not have {header.audio_rate} samples for every second"
    yield from _offset_faults("audio_offset", index.audio_offset, clips, len(file["audio"]))
    for name, feature in header.features.items():
        values = file[f"features/{name}"]
        if values.shape[1] != feature["dim"]:
            yield f"{name} has {values.shape[1]} columns, the header says {feature['dim']}"
        yield from _offset_faults(f"offset of {name}", index.offset, clips, len(values))
        yield from _finite_faults(name, values)
