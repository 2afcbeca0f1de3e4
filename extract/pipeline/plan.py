"""What has to be done: which shards, for which features, and why.

A shard is the clips of one split from one position to another, once for every
feature. Each is planned, written and judged on its own: it is done when it holds
the planned clips as their files are now, computed with the settings, weights and
revision that are asked for now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from featreg.datasets.audio import decode as audio
from featreg.datasets.audio.decode import Resampler, fingerprint
from featreg.datasets.base import Clip, Dataset, FeatregError
from featreg.datasets.shards.native import Failure, NativeHeader, NativeShard, native_shard
from featreg.datasets.shards.workdir import DatasetDir, shard_name, splits_of

from ..extractors.base import Extractor
from ..extractors.registry import FeatureSpec
from .decode import SILENCE

# Hash of weights that are not here: a shard may have been made with them.
_NOT_HERE = "not here"

# Files looked at together: on a network file system each waits for an answer.
_LOOKING = 8


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
        The dataset's folder in the working folder.
    split, index
        The shard's place.
    clips
        The clips, without labels.
    beyond
        Further clips that belong there, beyond the limit of this run: what the shard holds of
        them is kept, where its other rows are.
    request
        What is asked for, reduced to the features that this shard lacks.
    reasons
        For each feature, why it has to be done.
    keep
        Features whose shard is there and made as it would be now, each with the clips that
        are to be computed all the same: it gives the rows of those whose files are as they were.
    threads
        For the network; 0 for as many as the Dask worker has.
    clip_timeout_s
        Seconds after which the decoding of a clip, or a call of a network, is given up.
    careful
        Whether a worker broke on this shard, and each clip is to be tried alone first.
    headers
        What the shard of each feature is to say of itself, as planned: a worker whose code
        or weights would say other does not do it.
    """

    folder: DatasetDir
    split: str
    index: int
    clips: tuple[Clip, ...]
    request: Request
    beyond: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()
    keep: Mapping[str, frozenset[str]] = field(default_factory=dict)
    threads: int = 1
    clip_timeout_s: float = 600.0
    careful: bool = False
    headers: Mapping[str, NativeHeader] = field(default_factory=dict)

    def path(self, feature: str) -> Path:
        """Where the shard of `feature` lies."""
        return self.folder.native(feature) / shard_name(self.split, self.index)

    def computed(self, feature: str) -> list[Clip]:
        """Clips whose rows of `feature` are to be computed; of the others there are some."""
        lacking = self.keep.get(feature)
        return [clip for clip in self.clips if lacking is None or clip.clip_id in lacking]

    def __str__(self) -> str:
        return f"{self.split} shard {self.index}"


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of a shard's clips.

    Attributes
    ----------
    durations
        Decoded seconds of each clip that could be decoded.
    failures
        Clips without rows of some feature, or of all.
    tried, audio_s
        Clips that this run tried, and seconds of audio that it decoded.
    seconds
        Time that each stage took.
    network
        The part of it that the network of each feature took.
    rows
        Rows of each feature that were computed.
    written
        Bytes on disk that the computed rows take, by feature.
    worker, peak_bytes
        Who did it, and the most memory that it had, its decoders included.
    threads
        Of its network.
    notes
        What its user should hear of, a line each.
    """

    durations: dict[str, float]
    failures: tuple[Failure, ...]
    tried: int = 0
    audio_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    network: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    worker: str = ""
    peak_bytes: int = 0
    threads: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do.

    Attributes
    ----------
    jobs
        Shards to do.
    done
        What the finished ones say of their clips.
    stale
        Shards of the features asked for in which no clip belongs any more.
    """

    jobs: tuple[ShardJob, ...]
    done: tuple[ShardResult, ...]
    stale: tuple[Path, ...] = ()


def header_of(extractor: Extractor, dataset: str, request: Request) -> NativeHeader:
    """What a shard of this extractor says of itself."""
    heard = {"resampler": request.resampler, "audio_revision": audio.REVISION}
    # As they will come back from the shard: tuples are lists in JSON.
    settings = json.loads(json.dumps({**extractor.settings, **heard}, default=str))
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
        Its clips.
    folder
        Where its shards lie.
    request
        What is wanted.
    splits
        Only these, all if empty.
    limit
        At most so many clips of each split. With `splits` or a limit no shard is stale:
        what else there is, a whole run put there.
    retry_failed
        Whether clips that failed are tried again, though their files have not changed.
    """
    headers = {
        spec.name: header_of(spec.extractor(), dataset.name, request) for spec in request.features
    }
    places: list[ShardJob] = []
    for split, clips in splits_of(dataset.clips).items():
        if splits and split not in splits:
            continue
        wanted = len(clips) if limit is None else min(limit, len(clips))
        for index, first in enumerate(range(0, wanted, request.shard_clips)):
            there = clips[first : first + request.shard_clips]
            asked = _without_labels(there[: wanted - first])
            beyond = frozenset(clip.clip_id for clip in there[wanted - first :])
            places.append(ShardJob(folder, split, index, asked, request, beyond, headers=headers))

    def judge(job: ShardJob) -> tuple[ShardJob | None, list[ShardResult]]:
        done, reasons, keep = [], {}, {}
        there = [spec for spec in request.features if job.path(spec.name).exists()]
        heard = {clip.clip_id: fingerprint(clip) for clip in job.clips} if there else {}
        for spec in request.features:
            if spec not in there:
                reasons[spec] = "not extracted yet"
                continue
            read = spec.extractor().fingerprint
            files = {clip.clip_id: read(clip, heard[clip.clip_id]) for clip in job.clips}
            found = _read_result(
                job.path(spec.name), headers[spec.name], files, job.beyond, request, retry_failed
            )
            if isinstance(found, ShardResult):
                done.append(found)
                continue
            reasons[spec] = found.reason
            if found.lacking is not None:
                keep[spec.name] = found.lacking
        if not reasons:
            return None, done
        reduced = replace(request, features=tuple(reasons))
        return replace(job, request=reduced, reasons=tuple(reasons.values()), keep=keep), done

    with ThreadPoolExecutor(_LOOKING) as pool:
        judged = list(pool.map(judge, places))
    stale: set[Path] = set()
    if not splits and limit is None:
        for spec in request.features:
            planned = {job.path(spec.name) for job in places}
            stale |= set(folder.native(spec.name).glob("*.h5")) - planned
    return Plan(
        tuple(job for job, _ in judged if job is not None),
        tuple(account for _, accounts in judged for account in accounts),
        tuple(sorted(stale)),
    )


def _without_labels(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """Clips as they travel: paths that hold in any folder, no labels."""
    nothing = np.empty(0, np.uint8)
    return tuple(
        replace(clip, path=clip.path.absolute(), label=nothing, label_mask=nothing)
        for clip in clips
    )


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why a shard is to be done, and the clips whose rows it cannot give; None for all."""

    reason: str
    lacking: frozenset[str] | None = None


def _read_result(
    path: Path,
    header: NativeHeader,
    files: dict[str, str],
    beyond: frozenset[str],
    request: Request,
    retry_failed: bool,
) -> ShardResult | _Lack:
    """What the finished shard at `path` says of the clips in `files`, or why it is not done.

    The clips in `beyond` belong there too.
    """
    try:
        with native_shard(path) as shard:
            if reason := difference(shard.header, header):
                return _Lack(reason)
            lacking = frozenset(key for key, file in files.items() if not gives(shard, key, file))
            if reason := _other_clips(shard, files, beyond):
                return _Lack(reason, lacking)
            failures = tuple(each for each in shard.failures if each.clip_id in files)
            if request.keep_silent and any(each.stage == SILENCE for each in failures):
                return _Lack("silent clips are to be kept", lacking)
            if retry_failed and failures:
                return _Lack(f"{len(failures)} failed clips are to be tried again", lacking)
            durations = {key: shard.durations[key] for key in shard.clip_ids if key in files}
            return ShardResult(durations, failures)
    except FeatregError as error:
        return _Lack(str(error))


def gives(shard: NativeShard, clip_id: str, file: str) -> bool:
    """Whether a shard holds rows of the clip, of the file as it is now."""
    return clip_id in shard.durations and shard.fingerprints[clip_id] == file


def _other_clips(shard: NativeShard, files: dict[str, str], beyond: frozenset[str]) -> str:
    """What differs in the clips that a shard holds; empty if nothing does."""
    changed = [key for key, file in files.items() if shard.fingerprints.get(key) != file]
    if changed:
        return f"{len(changed)} clips are new or changed, {changed[0]} among them"
    # Their rows would be there twice, and stay as they are when the clip changes.
    if strangers := shard.fingerprints.keys() - files.keys() - beyond:
        return f"{len(strangers)} clips belong here no more, {min(strangers)} among them"
    return ""


def difference(found: NativeHeader, wanted: NativeHeader) -> str:
    """The first thing that differs between two headers; empty if nothing does.

    Weights that are not here are taken to be those that `found` was made with.
    """
    if wanted.weights_sha256 == _NOT_HERE:
        wanted = replace(wanted, weights_sha256=found.weights_sha256)
    if key := found.differing_setting(wanted):
        return f"{key} was {found.settings.get(key)}, now {wanted.settings.get(key)}"
    if found.weights_sha256 != wanted.weights_sha256:
        return "other weights"
    return "another layout of rows" if found != wanted else ""
