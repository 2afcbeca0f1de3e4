"""Description of the content of a shard."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from featreg.datasets.base import FeatregError
from featreg.datasets.shards import aligned, native
from featreg.datasets.shards.hdf5 import find_shards, read_text, reading
from featreg.datasets.shards.seal import read_seal


def describe(path: Path) -> str:
    """Description of a shard, or of all shards in a folder and its subfolders.

    Raises
    ------
    FeatregError
        If there is no shard at `path`, or a file is not a shard of featreg.
    """
    return "\n\n".join(map(_describe_shard, find_shards(path)))


def layout_of(path: Path) -> str:
    """Layout of the shard at `path`: `native.FORMAT` or `aligned.FORMAT`.

    Raises
    ------
    FeatregError
        If the file is not a shard of featreg.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            layout = read_text(file, "format", "none")
    except OSError as error:
        raise FeatregError(f"{path}: not a readable HDF5 file ({error})") from None
    if layout not in (native.FORMAT, aligned.FORMAT):
        raise FeatregError(f"{path}: expected a shard of featreg, found another HDF5 file")
    return layout


def _describe_shard(path: Path) -> str:
    lines = _native_lines(path) if layout_of(path) == native.FORMAT else _aligned_lines(path)
    with h5py.File(path, "r", locking=False) as file, reading(file):
        stored = _stored_lines(file)
    return "\n".join([str(path), *(f"  {line}" for line in [*lines, *stored])])


def _native_lines(path: Path) -> list[str]:
    with native.native_shard(path) as shard:
        header, timing = shard.header, shard.header.timing
        lengths = list(shard.durations.values())
        return [
            f"native shard of {header.dataset}: {header.feature}, {header.dim} dimensions",
            (
                f"time grid: hop {timing.hop_s:g} s, window {timing.window_s:g} s, "
                f"first center {timing.first_center_s:g} s"
            ),
            (
                f"clips: {len(lengths)} with frames ({np.sum(lengths):.1f} s), "
                f"{len(shard.failures)} failed"
            ),
            *(f"  failed: {f.clip_id} at {f.stage}: {f.reason}" for f in shard.failures),
            f"sample rate: {header.sample_rate} Hz",
            f"weights: {header.weights_sha256 or 'none'}",
            f"settings: {json.dumps(header.settings, sort_keys=True)}",
        ]


def _aligned_lines(path: Path) -> list[str]:
    index = aligned.read_index(path)
    header = index.header
    positives = dict(zip(header.classes, index.label.sum(axis=0).tolist(), strict=True))
    return [
        (
            f"aligned shard of {header.dataset}: hop {header.resolution_s:g} s "
            f"(mode {header.mode}), audio at {header.audio_rate} Hz"
        ),
        (
            f"clips: {len(index.clip_id)} ({index.duration_s.sum():.1f} s), "
            f"splits {', '.join(sorted(set(index.split)))}"
        ),
        *(
            f"feature {name}: columns {feature['columns'][0]} to {feature['columns'][1]}, "
            f"native hop {feature['hop_s']:g} s"
            for name, feature in header.features.items()
        ),
        f"positives: {', '.join(f'{name} {count}' for name, count in positives.items())}",
        *(f"note: {note}" for note in header.notes),
    ]


def _stored_lines(file: h5py.File) -> list[str]:
    lines = [
        f"content: sha256 {read_seal(Path(file.filename))}",
        f"written by: featreg {read_text(file, 'featreg_version')}",
    ]

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            size = item.id.get_storage_size()
            lines.append(f"{name}: {item.dtype} {item.shape}, {size} bytes on disk")

    file.visititems(add)
    return lines
