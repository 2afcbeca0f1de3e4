"""What has to be done: which shards, for which features, and why.

A shard is the clips of one split from one position to another, once for every
feature. Each is planned, written and judged on its own: it is done when it holds
the planned clips as their files are now, computed with the settings, weights and
revision that are asked for now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from featreg.datasets.audio import Resampler, fingerprint
from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.native import Failure, NativeHeader, NativeShard, native_shard
from featreg.datasets.workdir import DatasetDir, shard_name, splits_of

from .features import FeatureSpec
from .stream import Extractor

# Stage at which a clip of nothing but zeros fails.
SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Request:
    """What a user wants extracted; equal requests give equal shards.

    Attributes
    ----------
    features
        The features, `audio` among them.
    resampler
        Brings files to the rate that each extractor hears.
    keep_silent
        Whether a clip whose every sample is zero is kept. It carries no information,
        and is more often a broken file than music. Clips that were kept once stay.
    shard_clips
        Clips a shard at most.
    """

    features: tuple[FeatureSpec, ...]
    resampler: Resampler = "soxr_hq"
    keep_silent: bool = False
    shard_clips: int = 64


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to do: small, because it travels to its worker.

    Attributes
    ----------
    folder
        The dataset's folder in the working folder; its clip list names the clips.
    split, index, first, last
        The shard's place: clips `first` to `last` of the split.
    request
        What is asked for, reduced to the features that this shard lacks.
    threads
        For the network.
    reasons
        For each feature, why it has to be done.
    """

    folder: DatasetDir
    split: str
    index: int
    first: int
    last: int
    request: Request
    threads: int = 1
    reasons: tuple[str, ...] = ()

    def path(self, feature: str) -> Path:
        """Where the shard of `feature` lies."""
        return self.folder.native(feature) / shard_name(self.split, self.index)

    @property
    def clips(self) -> int:
        """Clips in the shard."""
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a shard's clips.

    `durations` gives the decoded seconds of each clip with rows, `failures` the
    others, `seconds` the time that each stage took, `written` the bytes on disk.
    """

    durations: dict[str, float]
    failures: tuple[Failure, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    written: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Shards to do, and what the finished ones say of their clips."""

    jobs: tuple[ShardJob, ...]
    done: tuple[Account, ...]


def header_of(extractor: Extractor, dataset: str, request: Request) -> NativeHeader:
    """What a shard of this extractor says of itself."""
    return NativeHeader(
        dataset=dataset,
        feature=extractor.name,
        dim=extractor.dim,
        dtype=np.dtype(extractor.dtype).name,
        scale=extractor.quantization.scale,
        offset=extractor.quantization.offset,
        clock=extractor.clock,
        sample_rate=extractor.sample_rate,
        weights_sha256=extractor.weights_sha256,
        # As they will come back from the shard: tuples are lists in JSON.
        settings=json.loads(
            json.dumps({**extractor.settings, "resampler": request.resampler}, default=str)
        ),
    )


def make_plan(
    dataset: Dataset,
    folder: DatasetDir,
    request: Request,
    splits: Sequence[str] = (),
    limit: int | None = None,
) -> Plan:
    """The shards that `request` needs and `folder` lacks.

    Parameters
    ----------
    dataset
        Its clips.
    folder
        Where its shards lie.
    request
        What is wanted.
    splits
        Only these, all if empty.
    limit
        At most so many clips of each split.
    """
    headers = {
        spec.name: header_of(spec.extractor(), dataset.name, request) for spec in request.features
    }
    jobs: list[ShardJob] = []
    done: list[Account] = []
    for split, clips in splits_of(dataset.clips).items():
        if splits and split not in splits:
            continue
        for index, first in enumerate(range(0, len(clips[:limit]), request.shard_clips)):
            members = clips[:limit][first : first + request.shard_clips]
            job = ShardJob(folder, split, index, first, first + len(members), request)
            audio = {clip.clip_id: fingerprint(clip) for clip in members}
            lacking = {}
            for spec in request.features:
                read = spec.extractor().fingerprint
                files = {clip.clip_id: read(clip, audio[clip.clip_id]) for clip in members}
                found = _read_account(job.path(spec.name), headers[spec.name], files, request)
                if isinstance(found, Account):
                    done.append(found)
                else:
                    lacking[spec] = found
            if lacking:
                reduced = replace(request, features=tuple(lacking))
                jobs.append(replace(job, request=reduced, reasons=tuple(lacking.values())))
    return Plan(tuple(jobs), tuple(done))


def _read_account(
    path: Path, header: NativeHeader, files: dict[str, str], request: Request
) -> Account | str:
    """What the finished shard at `path` says of the clips in `files`, or why it is not done."""
    if not path.exists():
        return "not extracted yet"
    try:
        with native_shard(path) as shard:
            if reason := _why_stale(shard, header, files):
                return reason
            failures = tuple(each for each in shard.failures if each.clip_id in files)
            if request.keep_silent and any(each.stage == SILENCE for each in failures):
                return "silent clips are to be kept"
            durations = {key: shard.durations[key] for key in shard.clip_ids if key in files}
            return Account(durations, failures)
    except FeatregError as error:
        return str(error)


def _why_stale(shard: NativeShard, header: NativeHeader, files: dict[str, str]) -> str:
    """What differs between a shard and what is wanted; empty if nothing does."""
    found, wanted = shard.header.settings, header.settings
    for key in sorted({*found, *wanted}):
        if found.get(key) != wanted.get(key):
            return f"{key} was {found.get(key)}, now {wanted.get(key)}"
    if shard.header.weights_sha256 != header.weights_sha256:
        return "other weights"
    if shard.header != header:
        return "another layout of rows"
    changed = [key for key, file in files.items() if shard.fingerprints.get(key) != file]
    if changed:
        return f"{len(changed)} clips are new or changed, {changed[0]} among them"
    return ""
