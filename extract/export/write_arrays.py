"""Exported features as NumPy arrays: one npz file, or a folder of npy files.

==============  ===================  ===================================================
array           shape                content
==============  ===================  ===================================================
``values``      (frames, dim)        float32; the frames of all clips, one after another
``times``       (frames,)            float64; centers of the frames in their clip, in seconds
``offset``      (clips + 1,)         clip k has the frames from offset[k] to offset[k + 1] - 1
``clip_id``     (clips,)             ids of the clips
``duration_s``  (clips,)             lengths of the clips, in seconds
``split``       (clips,)             ``train``, ``valid`` or ``test``; empty if unknown
``classes``     (classes,)           names of the classes
``label``       (clips, classes)     1 where the class is present
``label_mask``  (clips, classes)     1 where the class was annotated
==============  ===================  ===================================================

With pooling, ``values`` has one frame per clip, and there are no ``times`` and ``offset``. The last
four arrays are absent if the labels are unknown.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from featreg.datasets.shards.atomic_file import atomic_path

from .pool import Pool, pooled
from .read_features import StoredFeature, Values


def write_npz(feature: StoredFeature, path: Path, pool: Pool | None) -> None:
    """Write the arrays of a feature to one uncompressed npz file."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("values.npy", "w", force_zip64=True) as file:
            _write_values(feature, file, pool)
        for name, array in _small_arrays(feature, pool).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def write_npy(feature: StoredFeature, folder: Path, pool: Pool | None) -> None:
    """Write the arrays of a feature to npy files in a folder, the values last."""
    for name, array in _small_arrays(feature, pool).items():
        with atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
    with atomic_path(folder / "values.npy") as temporary, open(temporary, "wb") as file:
        _write_values(feature, file, pool)


def vectors(feature: StoredFeature, pool: Pool | None) -> Iterator[Values]:
    """Values of each clip: all frames, or one pooled frame; shape (frames, dim)."""
    for frames in feature.values():
        if pool is not None and not feature.is_pooled:
            frames = pooled(frames, pool)[None]
        yield frames


def _write_values(feature: StoredFeature, file: IO[bytes], pool: Pool | None) -> None:
    """Write an npy file of all values, one clip at a time."""
    frames = len(feature.clips) if pool else sum(clip.frames for clip in feature.clips)
    dim = feature.dim * (2 if pool == "mean+std" else 1)
    header = {"descr": "<f4", "fortran_order": False, "shape": (frames, dim)}
    np.lib.format.write_array_header_2_0(file, header)
    for values in vectors(feature, pool):
        file.write(np.ascontiguousarray(values, "<f4").data)


def _small_arrays(feature: StoredFeature, pool: Pool | None) -> dict[str, npt.NDArray[Any]]:
    clips = feature.clips
    arrays: dict[str, npt.NDArray[Any]] = {}
    if pool is None:
        times = [feature.timing.centers(clip.frames) for clip in clips]
        arrays["times"] = np.concatenate([np.empty(0), *times])
        arrays["offset"] = np.cumsum([0, *(clip.frames for clip in clips)], dtype=np.int64)
    arrays["clip_id"] = np.array([clip.clip_id for clip in clips], dtype=np.str_)
    arrays["duration_s"] = np.array([clip.duration_s for clip in clips], np.float64)
    if feature.classes is not None:
        unknown = np.zeros(len(feature.classes), np.uint8)
        arrays["split"] = np.array([clip.split or "" for clip in clips], dtype=np.str_)
        arrays["classes"] = np.array(feature.classes, dtype=np.str_)
        for name in ("label", "label_mask"):
            given = [getattr(clip, name) for clip in clips]
            rows = [unknown if row is None else row for row in given]
            arrays[name] = np.reshape(rows, (len(clips), len(unknown))).astype(np.uint8)
    return arrays
