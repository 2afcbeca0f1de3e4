"""Planning of an extraction: the clips that lack a feature, and the shards to write.

A clip has a feature if the feature's shards contain the clip, or its failure, for the current
content of its file and the requested settings, weights and revision. All other clips are written
to new shards; existing shards never change.
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

# Placeholder for the hash of weights that are not on this machine (in a dry run).
_NOT_HERE = "not here"

# Number of files fingerprinted in parallel, which helps on slow network file systems.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """Features to extract and their settings; equal requests give equal features.

    Attributes
    ----------
    features
        Features, including `audio`.
    resampler
        Algorithm for conversion to the sample rate of each extractor.
    keep_silent
        Whether to keep clips in which every sample is zero, which usually are broken files.
        Silent clips that were extracted earlier are kept in any case.
    shard_clips
        Maximum number of clips per shard.
    """

    features: tuple[FeatureSpec, ...]
    resampler: Resampler = "soxr_hq"
    keep_silent: bool = False
    shard_clips: int = 64


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Clips to decode, and one shard to write for each feature that they lack.

    A job is sent to its worker, so it is small.

    Attributes
    ----------
    folder
        The dataset's folder in the working folder.
    clips
        Clips, without labels.
    request
        Request, reduced to the features that these clips lack.
    numbers, headers
        Number and header of the shard to write for each feature. A worker whose code or weights
        would write another header rejects the job.
    threads, clip_timeout_s
        See `Workers` and `run_extraction`; with 0 threads, the number is that of the Dask worker.
    isolate
        Whether to try each clip in its own process first, because a worker crashed on this job.
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
        """Path of the shard of `feature`."""
        return self.folder.native(feature) / shard_name(self.numbers[feature])

    def __str__(self) -> str:
        names = ", ".join(f"{name} {number:05d}" for name, number in self.numbers.items())
        return f"shard {names}"


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Result of a job.

    Attributes
    ----------
    durations
        Decoded length in seconds of each clip that could be decoded.
    failures
        Clips without frames of at least one feature.
    seconds
        Seconds that each stage took.
    written
        Bytes of each feature's shard.
    worker, peak_bytes
        Name of the worker, empty if the whole job failed; and its peak memory in bytes, including
        its decoders.
    """

    durations: dict[str, float]
    failures: tuple[Failure, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    worker: str = ""
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of an extraction.

    Attributes
    ----------
    jobs
        Shards to write.
    done
        Durations and failures of the requested clips in existing shards.
    reasons
        For each feature, the reasons to compute clips, each with the number of clips.
    obsolete
        Shards to remove once all jobs are done: each of their clips is in another shard with the
        requested settings, or no longer in the dataset.
    limits
        Number of requested clips of each split.
    """

    jobs: tuple[ShardJob, ...]
    done: ShardResult
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    obsolete: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=lambda: dict.fromkeys(SPLITS))


def header_of(extractor: Extractor, dataset: str, request: Request) -> NativeHeader:
    """The header of a shard of this extractor."""
    decoding = {"resampler": request.resampler, "audio_revision": audio.REVISION}
    # Convert as JSON in the shard does, for example tuples to lists.
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
        request=extractor.request,
    )


def make_plan(
    dataset: Dataset,
    folder: DatasetDir,
    request: Request,
    splits: Sequence[str] = (),
    limit: int | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Plan the shards that `request` requires and `folder` lacks.

    Parameters
    ----------
    dataset
        The dataset.
    folder
        Folder of its shards.
    request
        Features to extract.
    splits
        Splits to extract; all if empty.
    limit
        Maximum number of clips of each split; all if None.
    retry_failed
        Whether to retry clips that failed, even if their files have not changed.

    Raises
    ------
    FeatregError
        If there are shards of another version of the format.
    """
    limits = dict.fromkeys(splits or SPLITS, limit)
    # Jobs are sent to workers: paths are absolute, and labels are omitted.
    nothing = np.empty(0, np.uint8)
    clips = [
        replace(clip, path=clip.path.absolute(), label=nothing, label_mask=nothing)
        for clip in first_clips(dataset.clips, limits)
    ]
    features = [_Feature(spec, folder, dataset.name, request) for spec in request.features]
    with ThreadPoolExecutor(_THREADS) as pool:
        prints = list(pool.map(fingerprint, clips))

    durations: dict[str, float] = {}
    failures: list[Failure] = []
    lacking: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)  # features -> clips
    for k, (clip, audio_print) in enumerate(zip(clips, prints, strict=True)):
        lacks = []
        for number, feature in enumerate(features):
            held = feature.current(clip, audio_print, request.keep_silent, retry_failed)
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
    """Shards of one feature: the clips that match the request, and new shards to add."""

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
        self, clip: Clip, audio_print: str, keep_silent: bool, retry_failed: bool
    ) -> HeldClip | None:
        """The current entry of the clip; if there is none, count the reason and return None."""
        held = self._held.get(clip.clip_id)
        if held is None:
            reason = self._why_absent(clip.clip_id)
        elif held.fingerprint != self.spec.extractor().fingerprint(clip, audio_print):
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
        """Number of a new shard for these clips, above those of all shards that contain them.

        Subject to this, it is the lowest free number, so that the rerun of an interrupted run
        writes the shards that the interrupted run would have written.
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
        self._index.damaged.pop(path, None)  # it will be overwritten
        self._held.update((clip.clip_id, HeldClip(path, "", 0.0)) for clip in clips)
        return number

    def obsolete(self, clip_ids: Collection[str]) -> list[Path]:
        """Shards that are not needed any more once all planned shards are written."""
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
    """Description of the first difference between two headers; empty if there is none.

    Weights that are not on this machine are assumed to be those of `found`.
    """
    if wanted.weights_sha256 == _NOT_HERE:
        wanted = replace(wanted, weights_sha256=found.weights_sha256)
    return found.difference(wanted)
