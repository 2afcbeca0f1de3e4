"""Description of a plan: its work, the reasons, and the maximum disk space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from statistics import mean

import numpy as np
from rich.filesize import decimal

from featreg.datasets.base import Clip
from featreg.datasets.console import counted, warn
from featreg.datasets.shards.disk_space import free_bytes
from featreg.datasets.shards.hdf5 import CHUNK_BYTES
from featreg.datasets.shards.workdir import DatasetDir

from ..alignment.align_shards import AlignPlan
from ..weights.registry import known
from .child_process import ChildDied, ChildProcess
from .decode import length_s
from .plan import Plan, Request

# Lower bound of the bytes per second of all supported audio formats, except for silence.
_LEAST_BYTES_PER_S = 10

# Bytes of a shard's metadata and clip list; a partly empty HDF5 chunk per feature is added.
_SHARD_BYTES = 20_000

# Declared lengths in seconds from which on the size of the file is checked.
_LONG_S = 3600.0

# If no length is known, the number of files whose length is read; the default length in seconds.
_SAMPLE, _CLIP_S = 20, 30.0


def describe(plan: Plan, request: Request) -> list[str]:
    """Description of an extraction, one line per feature and reason."""
    lines = []
    for name, reasons in plan.reasons.items():
        shards = sum(name in job.numbers for job in plan.jobs)
        lines += [
            f"{name}: {counted(count, 'clip')} to compute: {reason}"
            for reason, count in reasons.items()
        ]
        lines.append(f"{name}: {counted(shards, 'shard')} to write")
    for spec in request.features:
        if spec.name not in plan.reasons:
            lines.append(f"{spec.name}: nothing to do")
        for name in spec.extractor().missing_weights:
            published = known(name).published[0]
            how = "the run downloads them" if published.url else f"run `{published.source}`"
            lines.append(
                f"{spec.name}: the weights {name} are not on this machine; {how} (about "
                f"{published.megabytes:g} MB). Existing shards are assumed to be made with them"
            )
    if plan.obsolete:
        lines.append(f"{counted(len(plan.obsolete), 'obsolete shard')} to remove at the end")
    return lines


def describe_alignment(plan: AlignPlan) -> list[str]:
    """Description of an alignment: shards to write and to remove, and omitted clips."""
    clips = counted(sum(len(job.clips) for job in plan.jobs), "clip")
    shards = counted(len(plan.jobs), "shard")
    lines = [f"{plan.target}: {shards} to write ({clips}), {plan.done} up to date"]
    if plan.stale:
        lines.append(f"{counted(len(plan.stale), 'obsolete shard')} to remove")
    if plan.absent:
        lines.append(f"{counted(plan.absent, 'clip')} to omit because a feature is missing")
    return lines


def extraction_bytes(folder: DatasetDir, plan: Plan) -> int:
    """Maximum size of the shards of a plan in bytes, without compression.

    Lengths of clips are those of earlier runs or of the clip list, or else their mean.
    """
    clips = {clip.clip_id: clip for job in plan.jobs for clip in job.clips}
    if not clips:
        return 0
    lengths = {key: s for key, clip in clips.items() if (s := _declared_s(clip)) is not None}
    lengths |= folder.read_durations()
    usual = mean(lengths.values()) if lengths else _sampled_s(list(clips.values()))
    total = 0.0
    for job in plan.jobs:
        seconds = sum(lengths.get(clip.clip_id, usual) for clip in job.clips)
        for spec in job.request.features:
            extractor = spec.extractor()
            frames = seconds / extractor.timing.hop_s + len(job.clips)
            total += frames * extractor.dim * np.dtype(extractor.dtype).itemsize
            total += CHUNK_BYTES + _SHARD_BYTES
    return math.ceil(total)


def alignment_bytes(plan: AlignPlan) -> int:
    """Maximum size of the shards of an alignment in bytes."""
    total = 0
    for job in plan.jobs:
        header = job.header
        total += CHUNK_BYTES * (1 + len(header.features)) + _SHARD_BYTES
        values = 4 * sum(feature["dim"] for feature in header.features.values())
        for clip in job.clips:
            seconds = clip.duration_s or 0.0
            total += values * math.ceil(seconds / header.resolution_s)
            total += 2 * math.ceil(seconds * header.audio_rate)
    return total


def describe_space(folder: Path, needed: int) -> str:
    """Sentence about the required and the free disk space."""
    free = free_bytes(folder)
    verdict = "enough" if needed <= free else "may not be enough"
    return f"disk: at most {decimal(needed)} needed, {decimal(free)} free: {verdict}"


def warn_of_space(folder: Path, needed: int) -> None:
    """Warn if the disk space may not suffice; a run that fills the disk can be resumed."""
    if needed > free_bytes(folder):
        warn(f"{folder}: {describe_space(folder, needed)}")


def _declared_s(clip: Clip) -> float | None:
    """Declared length of the clip in seconds; limited, with a warning, by the size of its file."""
    seconds = clip.duration_s
    if seconds is None or seconds < _LONG_S:
        return seconds
    with suppress(OSError):
        size = clip.path.stat().st_size
        if seconds > size / _LEAST_BYTES_PER_S:
            warn(
                f"clip {clip.clip_id}: duration_s is {seconds:g}, but {clip.path} has only "
                f"{size:,} bytes; the clip is read up to the end of the file"
            )
            return size / _LEAST_BYTES_PER_S
    return seconds


def _sampled_s(clips: Sequence[Clip]) -> float:
    """Mean of the lengths that some of the clips' files declare, in seconds."""
    lengths = []
    with closing(ChildProcess(length_s, timeout_s=3.0)) as read:
        for clip in clips[:: max(1, len(clips) // _SAMPLE)]:
            with suppress(ChildDied):
                if (length := read(clip)) is not None:
                    lengths.append(min(length, _LONG_S))
    return mean(lengths) if lengths else _CLIP_S
