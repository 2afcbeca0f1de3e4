"""Whether shards are what they were when they were written, and agree with themselves."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from featreg.datasets.base import SPLITS
from featreg.datasets.shards import aligned, native
from featreg.datasets.shards.contiguous import checksum_name
from featreg.datasets.shards.hdf5 import (
    Array,
    content_sha256,
    datasets_of,
    read_text,
)
from featreg.datasets.shards.reader import ShardReader
from featreg.datasets.shards.seal import is_sealed

from ..alignment.resample_frames import target_frames
from ..extractors.custom import likely_frames
from ..extractors.registry import FEATURES

# Read together: bounds the memory.
_BLOCK_BYTES = 1 << 22


def faults(path: Path) -> list[str]:
    """What is wrong with the shard at `path`, a line each; empty if nothing is.

    Reads every byte, once: checksums, the hash of each dataset and of the attributes,
    offsets, counts, timing, labels, and values that are not finite.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            layout = read_text(file, "format", "none")
            if layout not in (native.FORMAT, aligned.FORMAT):
                return [f"{path}: an HDF5 file, but no shard of featreg's"]
            found = list(_stored_faults(file))
            if not found:
                check = _native_faults if layout == native.FORMAT else _aligned_faults
                found = list(check(path, file))
        if not found and not is_sealed(path):
            found = ["a byte outside of its datasets is not what was written: the hash differs"]
    except Exception as error:  # whatever a damaged file makes its readers raise
        found = [f"cannot be read: {error}"]
    return [f"{path}: {fault}" for fault in found]


def _stored_faults(file: h5py.File) -> Iterator[str]:
    """Datasets and attributes that are not what was written."""
    for name, dataset in datasets_of(file).items():
        if not dataset.fletcher32 and checksum_name(name) not in file:
            yield f"{name} has no checksums"
        digest = hashlib.sha256()
        infinite, rows = [], 0
        try:
            for block in _blocks(dataset):
                digest.update(block.data)
                if block.dtype.kind == "f":
                    finite = np.isfinite(block.reshape(len(block), -1)).all(axis=1)
                    infinite += [rows + row for row in np.flatnonzero(~finite).tolist()]
                rows += len(block)
        except OSError as error:
            yield f"{name} does not match its checksum ({error})"
            continue
        if digest.hexdigest() != read_text(dataset, "sha256"):
            yield f"{name} is not what was written: its hash differs"
        if infinite:
            yield f"{name} is not finite in row {infinite[0]} and {len(infinite) - 1} more"
    if content_sha256(file) != read_text(file, "content_sha256"):
        yield "the attributes are not what was written: the hash of the content differs"


def _blocks(dataset: h5py.Dataset) -> Iterator[Array]:
    rows = max(1, _BLOCK_BYTES // max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])))
    for start in range(0, len(dataset), rows):
        yield np.ascontiguousarray(dataset[start : start + rows])


def _offset_faults(name: str, offset: Array, clips: int, total: int) -> Iterator[str]:
    if len(offset) != clips + 1:
        yield f"{name} has {len(offset)} entries, expected {clips + 1} for {clips} clips"
    elif offset[0] != 0 or offset[-1] != total or (np.diff(offset) < 1).any():
        yield f"{name} does not rise from 0 to {total}, a row or more for every clip"


def _native_faults(path: Path, file: h5py.File) -> Iterator[str]:
    with native.native_shard(path) as shard:
        clips, frames = shard.clip_ids, file["frames"]
        if len(set(clips)) != len(clips):
            yield "a clip is there twice"
        offset = file["offset"][()]
        unequal = list(_offset_faults("offset", offset, len(clips), len(frames)))
        yield from unequal
        if frames.shape[1] != shard.header.dim:
            yield f"frames have {frames.shape[1]} columns, the header says {shard.header.dim}"
        if len(shard.durations) != len(clips) or not all(
            math.isfinite(seconds) and seconds > 0 for seconds in shard.durations.values()
        ):
            yield "duration_s is not above 0 for every clip"
        elif not unequal:
            yield from _row_faults(shard, np.diff(offset))


def _row_faults(shard: native.NativeShard, rows: npt.NDArray[np.int64]) -> Iterator[str]:
    """Clips whose rows are not as many as clip and timing make.

    How many they are exactly, an extractor knows, of the signal's samples. What holds for
    all of featreg's own: the last row sees some of the clip, and leaves less than a hop
    after it unseen. To that comes a sample, which resampling may add or drop.
    """
    timing = shard.header.timing
    own, sample_s = shard.header.feature in FEATURES, 1 / shard.header.sample_rate
    odd = []
    for (clip_id, seconds), count in zip(shard.durations.items(), rows.tolist(), strict=True):
        if own:
            rest = seconds - timing.first_center_s - (count - 1) * timing.hop_s
            half = timing.window_s / 2
            # A clip shorter than a window has its one row all the same.
            fits = rest - half < timing.hop_s + sample_s and (count == 1 or rest + half > -sample_s)
        else:
            expected, leeway = likely_frames(timing, seconds)
            fits = abs(count - expected) <= leeway + sample_s / timing.hop_s
        if not fits:
            odd.append(f"{clip_id} has {count} rows for {seconds:.2f} s")
    if odd:
        yield (
            f"{odd[0]}, which a row every {timing.hop_s:g} s does not make, and {len(odd) - 1} "
            "more clips are like it"
        )


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
    rows = [target_frames(seconds, header.resolution_s) for seconds in index.duration_s]
    if not np.array_equal(np.diff(index.offset), rows):
        yield f"clips do not have one row for every {header.resolution_s} s"
    samples = np.rint(index.duration_s * header.audio_rate)
    # Resampling may round a length either way.
    if np.abs(np.diff(index.audio_offset) - samples).max(initial=0) > 1:
        yield f"clips do not have {header.audio_rate} samples for every second"
    yield from _offset_faults("audio_offset", index.audio_offset, clips, len(file["audio"]))
    ShardReader(path, ("audio", *(f"features/{name}" for name in header.features))).verify()
    for name, feature in header.features.items():
        values = file[f"features/{name}"]
        if values.shape[1] != feature["dim"]:
            yield f"{name} has {values.shape[1]} columns, the header says {feature['dim']}"
        yield from _offset_faults(f"offset of {name}", index.offset, clips, len(values))
