"""Aligned shards from native shards: all features of a clip on one time grid, with its labels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import Clip, Dataset, FeatregError, UsageError
from featreg.datasets.console import counted
from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer, read_index
from featreg.datasets.shards.native import NativeHeader, NativeShard, native_shard
from featreg.datasets.shards.native_index import HeldClip, by_number, read_native_index, shard_paths
from featreg.datasets.shards.workdir import DatasetDir

from ..extractors.registry import AUDIO
from .resample_frames import REVISION, Mode, align_span, target_frames

# Number of target frames, and of audio samples, in memory at a time: a few MB of each feature.
_FRAMES = 2048
_SAMPLES = 1 << 20


@dataclass(frozen=True, slots=True)
class AlignJob:
    """One aligned shard to write.

    Attributes
    ----------
    target
        Path of the shard; its name is that of the native shard of the audio.
    header
        Metadata of the shard.
    clips
        Clips of the shard, in order, with labels.
    sources
        For every feature and the audio, the native shards that contain those clips, in the order
        of their numbers; if several contain a clip, the last one is used.
    fingerprint
        Fingerprint of all inputs of the shard.
    """

    target: Path
    header: AlignedHeader
    clips: tuple[Clip, ...]
    sources: Mapping[str, tuple[Path, ...]]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class AlignPlan:
    """Aligned shards to write.

    Attributes
    ----------
    target
        Folder of the shards.
    jobs
        Shards to write.
    done
        Number of shards that are up to date.
    clips
        Number of clips with all features.
    absent
        Number of clips without one of the features, which are omitted.
    stale
        Shards without clips, to be deleted.
    """

    target: Path
    jobs: tuple[AlignJob, ...]
    done: int
    clips: int
    absent: int
    stale: tuple[Path, ...]


class _Store(NamedTuple):
    """Native shards of a feature: their common header, the clips with frames, their hashes."""

    header: NativeHeader
    clips: Mapping[str, HeldClip]
    contents: Mapping[Path, str]


def _open_store(folder: DatasetDir, feature: str) -> _Store:
    index = read_native_index(folder.native(feature))
    again = f"run `prep extract --dataset {folder.name} --features {feature} ...`"
    for message in index.damaged.values():
        raise FeatregError(message)
    if not index.shards:
        extracted = ", ".join(folder.native_features()) or "none"
        raise FeatregError(
            f"{folder.path}: no native shards of {feature!r} (extracted features: {extracted}); "
            f"{again} first"
        )
    for (first, one), (path, other) in pairwise(index.shards.items()):
        if reason := one.header.difference(other.header):
            raise FeatregError(
                f"{path}: computed with other settings than {first} ({reason}); {again} again "
                "without --split and --limit, which computes every clip with the same settings"
            )
    clips = {key: held for key, held in index.clips().items() if held.failure is None}
    contents = {path: shard.content_sha256 for path, shard in index.shards.items()}
    return _Store(next(iter(index.shards.values())).header, clips, contents)


def _check_files(folder: DatasetDir, stores: Mapping[str, _Store]) -> None:
    """Raise an error if a feature and the audio of a clip come from different files."""
    audio = stores[AUDIO].clips
    for name, store in stores.items():
        # The fingerprint of a feature begins with that of the audio.
        others = [
            clip_id
            for clip_id, held in store.clips.items()
            if clip_id in audio and not held.fingerprint.startswith(audio[clip_id].fingerprint)
        ]
        if others:
            clips = counted(len(others), "clip")
            raise FeatregError(
                f"{folder.path}: the audio files of {clips} (such as {min(others)}) changed "
                f"between the extraction of {AUDIO} and that of {name}; run `prep extract "
                f"--dataset {folder.name} --features {name} ...` again to recompute the feature"
            )


def aligned_name(features: Sequence[str], resolution_s: float, mode: Mode) -> str:
    """Name of the folder of aligned shards, such as ``vggish+openl3-0.1s``.

    Modes other than ``repeat`` are appended.
    """
    suffix = "" if mode == "repeat" else f"-{mode}"
    return f"{'+'.join(features)}-{resolution_s:g}s{suffix}"


def plan_alignment(
    folder: DatasetDir, features: Sequence[str], resolution_s: float, mode: Mode
) -> AlignPlan:
    """Plan the aligned shards that have to be written.

    Parameters
    ----------
    folder
        The dataset's folder in the working folder.
    features
        Features in the order of their concatenation; all except the audio if empty.
    resolution_s
        Seconds per frame, above 0.
    mode
        ``repeat``, ``area`` or ``linear``.

    Raises
    ------
    UsageError
        If the resolution is not above 0, or not a whole number of audio samples.
    FeatregError
        If a feature was not extracted, or its shards were made with different settings, or a
        shard is damaged, or a clip's file changed between the extraction of two features.
    """
    dataset = folder.read_dataset()
    names = list(features) or [name for name in folder.native_features() if name != AUDIO]
    if not names:
        raise FeatregError(
            f"{folder.path}: no features found, only audio; run `prep extract --dataset "
            f"{folder.name} --features NAMES` first"
        )
    stores = {name: _open_store(folder, name) for name in (*names, AUDIO)}
    _check_files(folder, stores)
    samples = resolution_s * stores[AUDIO].header.sample_rate
    if not 0 < samples < math.inf or abs(samples - round(samples)) > 1e-6:
        raise UsageError(
            f"--resolution {resolution_s}: expected seconds above 0 that are a whole number of "
            f"samples at {stores[AUDIO].header.sample_rate} Hz, such as 0.1"
        )
    header = _header(dataset, stores, names, resolution_s, mode)
    target = folder.aligned(aligned_name(names, resolution_s, mode))
    groups: dict[Path, list[Clip]] = {}
    for clip in dataset.clips:
        if all(clip.clip_id in store.clips for store in stores.values()):
            source = stores[AUDIO].clips[clip.clip_id].path
            groups.setdefault(target / source.name, []).append(clip)
    if not groups:
        raise FeatregError(
            f"{folder.path}: no clip has frames of {', '.join(names)}; see {folder.failures_csv}"
        )
    jobs = [
        _make_job(path, header, tuple(members), stores) for path, members in sorted(groups.items())
    ]
    todo = tuple(job for job in jobs if not _is_done(job))
    stale = tuple(path for path in shard_paths(target) if path not in groups)
    clips = sum(map(len, groups.values()))
    return AlignPlan(target, todo, len(jobs) - len(todo), clips, len(dataset.clips) - clips, stale)


def _header(
    dataset: Dataset,
    stores: Mapping[str, _Store],
    names: Sequence[str],
    resolution_s: float,
    mode: Mode,
) -> AlignedHeader:
    features = {}
    column = 0
    for name in names:
        native = stores[name].header
        features[name] = {
            "dim": native.dim,
            "columns": [column, column + native.dim],
            **dataclasses.asdict(native.timing),
            "sample_rate": native.sample_rate,
            "weights_sha256": native.weights_sha256,
            "settings": native.settings,
        }
        if native.request:
            features[name]["request"] = native.request
        column += native.dim
    return AlignedHeader(
        dataset=dataset.name,
        task=dataset.task,
        classes=dataset.classes,
        resolution_s=resolution_s,
        mode=mode,
        audio_rate=stores[AUDIO].header.sample_rate,
        features=features,
        notes=dataset.notes,
        audio_settings=stores[AUDIO].header.settings,
    )


def _make_job(
    path: Path, header: AlignedHeader, clips: tuple[Clip, ...], stores: Mapping[str, _Store]
) -> AlignJob:
    sources = {}
    for name, store in stores.items():
        taken = {store.clips[clip.clip_id].path for clip in clips}
        sources[name] = tuple(sorted(taken, key=by_number))
    about = {"align_revision": REVISION, **dataclasses.asdict(header)}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, paths in sources.items():
        digest.update(f"{name} {[stores[name].contents[source] for source in paths]}".encode())
    for clip in clips:
        digest.update(f"{clip.clip_id!r} {clip.split} {clip.fold}".encode())
        digest.update(clip.label.tobytes() + clip.label_mask.tobytes())
    return AlignJob(path, header, clips, sources, digest.hexdigest())


def _is_done(job: AlignJob) -> bool:
    if not job.target.exists():
        return False
    try:
        return read_index(job.target).sources == job.fingerprint
    except FeatregError:
        return False


def align_shard(job: AlignJob) -> int:
    """Write one aligned shard and return its size in bytes.

    Long clips are processed in parts, so that the memory does not depend on their length.
    """
    header = job.header
    with ExitStack() as stack:
        shards: dict[str, dict[str, NativeShard]] = {}
        for name, paths in job.sources.items():
            opened = [stack.enter_context(native_shard(path)) for path in paths]
            shards[name] = {key: shard for shard in opened for key in shard.clip_ids}
        writer = stack.enter_context(aligned_writer(job.target, header, job.fingerprint))
        for clip in job.clips:
            audio = shards[AUDIO][clip.clip_id]
            duration_s = audio.durations[clip.clip_id]
            features = {
                name: _aligned_parts(shards[name][clip.clip_id], clip.clip_id, header, duration_s)
                for name in header.features
            }
            writer.append_parts(clip, features, _audio_parts(audio, clip.clip_id), duration_s)
    return job.target.stat().st_size


def _aligned_parts(
    shard: NativeShard, clip_id: str, header: AlignedHeader, duration_s: float
) -> Iterator[npt.NDArray[np.float32]]:
    """Frames of a clip on the target time grid, in parts."""
    mode: Mode = header.mode  # type: ignore[assignment]  # checked when the header was made
    wanted = target_frames(duration_s, header.resolution_s)
    for start in range(0, wanted, _FRAMES):
        yield align_span(
            partial(shard.values, clip_id),
            shard.frames(clip_id),
            shard.header.timing,
            header.resolution_s,
            duration_s,
            mode,
            range(start, min(wanted, start + _FRAMES)),
        )


def _audio_parts(shard: NativeShard, clip_id: str) -> Iterator[npt.NDArray[np.int16]]:
    """Audio samples of a clip, in parts."""
    for start in range(0, shard.frames(clip_id), _SAMPLES):
        yield shard.stored(clip_id, start, start + _SAMPLES)[:, 0].astype(np.int16, copy=False)
