"""What has to be done: which clips lack which features, and the shards that will hold them.

A clip has a feature if the feature's shards hold it (or its failure) as its file, the settings,
the weights and the revision are now. Other clips go to new shards: shards never change.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from featreg.datasets.audio import decode as audio
from featreg.datasets.audio.decode import Resampler, fingerprint
from featreg.datasets.base import SPLITS, Clip, Dataset
from featreg.datasets.shards.native import Failure, NativeHeader
from featreg.datasets.shards.native_index import (
    HeldClip,
    NativeIndex,
    read_native_index,
    shard_name,
)
from featreg.datasets.shards.workdir import DatasetDir, Limits, first_clips

from ..extractors.base import Extractor
from ..extractors.registry import FeatureSpec
from .decode import SILENCE

# Stands for the hash of weights that are not on this machine (in a dry run).
_NOT_HERE = "not here"

# Files fingerprinted at a time: a network file system answers slowly.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What a user wants extracted; equal requests give equal features.

    Attributes
    ----------
    features
        The features, `audio` among them.
    resampler
        Brings files to the sample rate of each extractor.
    keep_silent
        Whether a clip whose every sample is zero is kept. It carries no information, and is
        more often a broken file than music. Clips that were kept once stay.
    shard_clips
        Most clips in a shard.
    """

    features: tuple[FeatureSpec, ...]
    resampler: Resampler = "soxr_hq"
    keep_silent: bool = False
    shard_clips: int = 64


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Clips to decode once, and one shard to write for each feature that they lack.

    A job travels to its worker, so it is small.

    Attributes
    ----------
    folder
        The dataset's folder in the working folder.
    clips
        The clips, without labels.
    request
        What is asked for, reduced to the features that these clips lack.
    numbers, headers
        For each feature, the number of the shard to write, and its header: a worker whose code
        or weights would write another header refuses the job.
    threads, clip_timeout_s
        As in `Workers` and `run_extraction`; 0 threads for as many as the Dask worker has.
    isolate
        Whether a worker crashed on this job, and each clip is first tried in a process of its
        own.
    """

    folder: DatasetDir
    clips: tuple[Clip, ...]
    request: Request
    numbers: Mapping[str, int]
    headers: Mapping[str, NativeHeader] = field(default_factory=dict)
    threads: int = 1
    clip_timeout_s: float = 600.0
    isolate: bool = False

    def path(self, feature: str) -> Path:
        """Where the shard of `feature` will be."""
        return self.folder.native(feature) / shard_name(self.numbers[feature])

    def __str__(self) -> str:
        names = ", ".join(f"{name} {number:05d}" for name, number in self.numbers.items())
        return f"shard {names}"


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of a job's clips.

    Attributes
    ----------
    durations
        Decoded length in seconds of each clip that could be decoded.
    failures
        Clips without frames of some feature, or of all.
    tried, audio_s, seconds
        Clips tried, seconds of audio decoded, and seconds that each stage took.
    frames, written
        Frames and bytes of the shard of each feature.
    worker, peak_bytes
        The worker's name, and its peak memory, that of its decoders included.
    """

    durations: dict[str, float]
    failures: tuple[Failure, ...]
    tried: int = 0
    audio_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    worker: str = ""
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do.

    Attributes
    ----------
    jobs
        Shards to write.
    done
        Durations and failures that the shards there hold of the clips asked for.
    reasons
        For each feature, why clips have to be computed, and how many.
    obsolete
        Shards to remove once all jobs are done: each of their clips is in another shard, made
        as is asked for now, or in the dataset no more.
    limits
        How many clips of each split were asked for.
    """

    jobs: tuple[ShardJob, ...]
    done: ShardResult
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    obsolete: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=lambda: dict.fromkeys(SPLITS))


def header_of(extractor: Extractor, dataset: str, request: Request) -> NativeHeader:
    """The header of a shard of this extractor."""
    decoding = {"resampler": request.resampler, "audio_revision": audio.REVISION}
    # As they will come back from the shard: tuples are lists in JSON.
    settings = json.loads(json.dumps({**extractor.settings, **decoding}, default=str))
    return NativeHeader(
        dataset=dataset,
        feature=extractor.name,
        dim=extractor.dim,
        dtype=np.dtype(extractor.dtype).name,
        scale=extractor.quantization.scale,
        offset=extractor.quantization.offset,
        timing=extractor.timing,
        sample_rate=extractor.sample_rate,
        weights_sha256=_NOT_HERE if extractor.missing_weights else extractor.weights_sha256,
        settings=settings,
    )


def make_plan(
    dataset: Dataset,
    folder: DatasetDir,
    request: Request,
    splits: Sequence[str] = (),
    limit: int | None = None,
    retry_failed: bool = False,
) -> Plan:
    """The shards that `request` needs and `folder` lacks.

    Parameters
    ----------
    dataset
        All its clips.
    folder
        Where its shards are.
    request
        What is wanted.
    splits
        Only these splits, all if empty.
    limit
        At most so many clips of each split, all if None.
    retry_failed
        Whether clips that failed are tried again, though their files have not changed.

    Raises
    ------
    FeatregError
        If there are shards of another version.
    """
    limits = dict.fromkeys(splits or SPLITS, limit)
    # Jobs travel to workers: paths are absolute, and labels stay here.
    nothing = np.empty(0, np.uint8)
    clips = [
        replace(clip, path=clip.path.absolute(), label=nothing, label_mask=nothing)
        for clip in first_clips(dataset.clips, limits)
    ]
    features = [_Feature(spec, folder, dataset.name, request) for spec in request.features]
    with ThreadPoolExecutor(_THREADS) as pool:
        sounds = list(pool.map(fingerprint, clips))

    durations: dict[str, float] = {}
    failures: list[Failure] = []
    lacking: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)  # features -> clips
    for k, (clip, sound) in enumerate(zip(clips, sounds, strict=True)):
        lacks = []
        for number, feature in enumerate(features):
            held = feature.current(clip, sound, request.keep_silent, retry_failed)
            if held is None:
                lacks.append(number)
            elif held.failure is not None:
                failures.append(held.failure)
            else:
                durations[clip.clip_id] = held.duration_s
        if lacks:
            lacking[tuple(lacks)].append(k)

    size = request.shard_clips
    groups = [
        (positions[first : first + size], lacks)
        for lacks, positions in lacking.items()
        for first in range(0, len(positions), size)
    ]
    jobs = []
    for positions, numbers in sorted(groups):
        members, wanted = [clips[k] for k in positions], [features[number] for number in numbers]
        jobs.append(
            ShardJob(
                folder,
                tuple(members),
                replace(request, features=tuple(feature.spec for feature in wanted)),
                {feature.spec.name: feature.place(members) for feature in wanted},
                {feature.spec.name: feature.header for feature in wanted},
            )
        )
    ids = {clip.clip_id for clip in dataset.clips}
    return Plan(
        tuple(jobs),
        ShardResult(durations, tuple(failures)),
        {feature.spec.name: feature.reasons for feature in features if feature.reasons},
        tuple(path for feature in features for path in feature.obsolete(ids)),
        limits,
    )


class _Feature:
    """The shards of one feature: what they hold as it is asked for now, and what to add."""

    def __init__(
        self, spec: FeatureSpec, folder: DatasetDir, dataset: str, request: Request
    ) -> None:
        self.spec = spec
        self.header = header_of(spec.extractor(), dataset, request)
        self.reasons: Counter[str] = Counter()
        self._index: NativeIndex = read_native_index(folder.native(spec.name))
        self._held = self._index.clips(lambda header: not difference(header, self.header))
        self._others = self._index.clips()
        self._taken = {int(path.stem) for path in self._index.shards}
        self._first_free = 0

    def current(
        self, clip: Clip, sound: str, keep_silent: bool, retry_failed: bool
    ) -> HeldClip | None:
        """What is held of the clip; None, with the reason noted, if it has to be computed."""
        held = self._held.get(clip.clip_id)
        if held is None:
            reason = self._why_absent(clip.clip_id)
        elif held.fingerprint != self.spec.extractor().fingerprint(clip, sound):
            reason = "the file or the excerpt has changed"
        elif held.failure is not None and retry_failed:
            reason = "failed before (--retry-failed)"
        elif held.failure is not None and held.failure.stage == SILENCE and keep_silent:
            reason = "silent (--keep-silent)"
        else:
            return held
        self.reasons[reason] += 1
        return None

    def _why_absent(self, clip_id: str) -> str:
        if other := self._others.get(clip_id):
            return difference(self._index.shards[other.path].header, self.header)
        return next(iter(self._index.damaged.values()), "not extracted yet")

    def place(self, clips: Sequence[Clip]) -> int:
        """Number of a new shard for these clips, above every shard that holds them now.

        Otherwise it is the lowest free number, which an interrupted run or a damaged shard has
        left: so that its rerun writes the shards that it would have written.
        """
        number = self._first_free
        for clip in clips:
            if held := self._held.get(clip.clip_id):
                number = max(number, int(held.path.stem) + 1)
        filled = number == self._first_free
        while number in self._taken:
            number += 1
        self._taken.add(number)
        if filled:
            self._first_free = number + 1
        path = self._index.folder / shard_name(number)
        self._index.damaged.pop(path, None)  # it is written over
        self._held.update((clip.clip_id, HeldClip(path, "", 0.0)) for clip in clips)
        return number

    def obsolete(self, clip_ids: Collection[str]) -> list[Path]:
        """Shards that hold nothing of use once every planned shard is written."""
        unused = [
            path
            for path, shard in self._index.shards.items()
            if not any(
                clip_id in clip_ids and self._held.get(clip_id, held).path == path
                for clip_id, held in shard.clips.items()
            )
        ]
        return unused + list(self._index.damaged)


def difference(found: NativeHeader, wanted: NativeHeader) -> str:
    """The first difference between two headers, in words; empty if there is none.

    Weights that are not on this machine are taken to be those that `found` was made with.
    """
    if wanted.weights_sha256 == _NOT_HERE:
        wanted = replace(wanted, weights_sha256=found.weights_sha256)
    if key := found.differing_setting(wanted):
        return f"{key} was {found.settings.get(key)}, now {wanted.settings.get(key)}"
    if found.weights_sha256 != wanted.weights_sha256:
        return "the weights have changed"
    if found.dataset != wanted.dataset:
        return f"the shard belongs to the dataset {found.dataset}"
    return "the dimensions, the data type or the timing has changed" if found != wanted else ""
