"""The features in native or aligned shards, clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import Clip, FeatregError, UsageError
from featreg.datasets.shards import aligned, native
from featreg.datasets.shards.hdf5 import find_shards
from featreg.datasets.shards.native_index import by_number, read_native_index
from featreg.datasets.shards.reader import ShardReader
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir

from ..extractors.registry import AUDIO
from ..inspection.describe import layout_of

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StoredClip:
    """A clip with frames; `split`, `label` and `label_mask` are None if unknown."""

    clip_id: str
    frames: int
    duration_s: float
    split: str | None = None
    label: npt.NDArray[np.uint8] | None = None
    label_mask: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StoredFeature:
    """One feature of many clips.

    Attributes
    ----------
    name, dim, timing
        Name of the feature, its number of dimensions, and the time grid of its frames.
    classes
        Names of the classes, in the order of the labels; None if they are unknown.
    clips
        The clips, in the order in which `values` returns them.
    values
        Function that yields the frames of each clip, shape (frames, dim), float32.
    is_pooled
        Whether `values` yields one pooled frame per clip.
    """

    name: str
    dim: int
    timing: FrameTiming
    classes: tuple[str, ...] | None
    clips: tuple[StoredClip, ...]
    values: Callable[[], Iterator[Values]]
    is_pooled: bool = False


def read_features(path: Path, wanted: Sequence[str] = ()) -> list[StoredFeature]:
    """The features in a shard, or in all shards of a folder.

    Parameters
    ----------
    path
        A native or aligned shard, or a folder with shards of one of the two kinds and of one
        dataset.
    wanted
        Names of the features; empty for all except the audio.

    Raises
    ------
    FeatregError
        If a shard is damaged, there are no shards, or a feature is missing.
    UsageError
        If there are shards of both kinds, or of two sets of aligned shards.
    """
    paths = sorted(find_shards(path), key=by_number)
    layouts = {layout_of(shard) for shard in paths}
    folders = sorted({shard.parent for shard in paths})
    if len(layouts) > 1:
        raise UsageError(
            f"{path}: expected native or aligned shards, found both; give one of the folders "
            f"{', '.join(map(str, folders))}"
        )
    if layouts == {aligned.FORMAT}:
        if len(folders) > 1:
            raise UsageError(
                f"{path}: expected one set of aligned shards; give one of the folders "
                f"{', '.join(map(str, folders))}"
            )
        found = _aligned_features([aligned.read_index(shard) for shard in paths])
    else:
        found = {}
        for folder in folders:
            feature = _native_feature(folder, path if path.is_file() else None)
            if feature.name in found:
                raise UsageError(
                    f"{path}: expected the shards of one dataset, found the feature "
                    f"{feature.name} of several"
                )
            found[feature.name] = feature
    names = wanted or [name for name in found if name != AUDIO or len(found) == 1]
    if missing := [name for name in names if name not in found]:
        raise FeatregError(f"{path}: feature {missing[0]} not found, only {', '.join(found)}")
    return [found[name] for name in names]


def _aligned_features(indexes: Sequence[aligned.AlignedIndex]) -> dict[str, StoredFeature]:
    clips = tuple(
        StoredClip(
            clip_id,
            int(index.offset[k + 1] - index.offset[k]),
            float(index.duration_s[k]),
            index.split[k],
            index.label[k],
            index.label_mask[k],
        )
        for index in indexes
        for k, clip_id in enumerate(index.clip_id)
    )
    header = indexes[0].header
    hop = header.resolution_s
    return {
        name: StoredFeature(
            name,
            int(about["dim"]),
            FrameTiming(hop, hop, hop / 2),
            header.classes,
            clips,
            partial(_aligned_values, indexes, name, int(about["dim"])),
        )
        for name, about in header.features.items()
    }


def _aligned_values(
    indexes: Sequence[aligned.AlignedIndex], name: str, dim: int
) -> Iterator[Values]:
    for index in indexes:
        reader = ShardReader(index.path, [f"features/{name}"])
        for start, stop in zip(index.offset[:-1].tolist(), index.offset[1:].tolist(), strict=True):
            frames = np.empty((stop - start, dim), np.float32)
            reader.read(f"features/{name}", start, frames)
            yield frames


def _native_feature(folder: Path, only: Path | None) -> StoredFeature:
    """The feature in a folder of native shards, or in one of its shards."""
    index = read_native_index(folder)
    for path, reason in index.damaged.items():
        raise FeatregError(f"{path}: {reason}")
    # If several shards contain a clip, the last one is valid.
    held = {
        clip_id: clip
        for clip_id, clip in index.clips().items()
        if clip.failure is None and only in (None, clip.path)
    }
    by_shard: dict[Path, list[str]] = {}
    for clip_id, clip in held.items():
        by_shard.setdefault(clip.path, []).append(clip_id)
    classes, known = _annotations(folder)
    clips = []
    for path, ids in by_shard.items():
        with native.native_shard(path) as shard:
            for clip_id in ids:
                about = known.get(clip_id)
                clips.append(
                    StoredClip(
                        clip_id,
                        shard.frames(clip_id),
                        held[clip_id].duration_s,
                        about.split if about else None,
                        about.label if about else None,
                        about.label_mask if about else None,
                    )
                )
    header = next(reversed(index.shards.values())).header
    values = partial(_native_values, by_shard)
    return StoredFeature(header.feature, header.dim, header.timing, classes, tuple(clips), values)


def _native_values(by_shard: Mapping[Path, Sequence[str]]) -> Iterator[Values]:
    for path, ids in by_shard.items():
        with native.native_shard(path) as shard:
            for clip_id in ids:
                yield shard.values(clip_id)


def _annotations(folder: Path) -> tuple[tuple[str, ...] | None, dict[str, Clip]]:
    """Classes and clips of the dataset whose native shards are in a folder, if it is known."""
    dataset = DatasetDir(folder.absolute().parents[1])
    if folder.absolute().parent.name != "native" or not dataset.clips_csv.is_file():
        return None, {}
    found = dataset.read_dataset()
    return found.classes, {clip.clip_id: clip for clip in found.clips}
