"""What a plan will do and why, and how much disk space it takes at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from statistics import mean

import numpy as np

from featreg.datasets.base import Clip
from featreg.datasets.console import warn
from featreg.datasets.shards.disk_space import free_bytes
from featreg.datasets.shards.hdf5 import CHUNK_BYTES
from featreg.datasets.shards.workdir import DatasetDir

from ..alignment.align_shards import AlignPlan
from ..weights.registry import known
from .child_process import ChildDied, ChildProcess
from .decode import length_s
from .plan import Plan, Request

# No audio format that is read here stores a second in fewer bytes, except of silence.
_LEAST_BYTES_PER_S = 10

# What a shard takes beside its values: a last chunk that is partly empty for each dataset of
# frames, and HDF5's own structure with what is known of the clips.
_SHARD_BYTES = 20_000

# Declared lengths from which on a file's size is looked at, in seconds.
_LONG_S = 3600.0

# Where no length is known, that of so many files is read; and seconds if none can be read.
_SAMPLE, _CLIP_S = 20, 30.0


def describe(plan: Plan, request: Request) -> list[str]:
    """What an extraction would do, a line for each feature and reason."""
    lines = []
    for name, reasons in plan.reasons.items():
        shards = sum(name in job.numbers for job in plan.jobs)
        lines += [
            f"{name}: {count:,} clips to compute: {reason}" for reason, count in reasons.items()
        ]
        lines.append(f"{name}: {shards:,} shards to write")
    for spec in request.features:
        if spec.name not in plan.reasons:
            lines.append(f"{spec.name}: nothing to do")
        for name in spec.extractor().missing_weights:
            published = known(name).published[0]
            how = "the run fetches them" if published.url else f"get them by `{published.source}`"
            lines.append(
                f"{spec.name}: the weights {name} are not here; {how} (about "
                f"{published.megabytes:g} MB). Shards that exist count as made with them"
            )
    if plan.obsolete:
        lines.append(f"{len(plan.obsolete):,} obsolete shards to remove once all is written")
    return lines


def describe_alignment(plan: AlignPlan) -> list[str]:
    """What an alignment would write, leave and remove."""
    clips = sum(len(job.clips) for job in plan.jobs)
    lines = [f"{plan.target}: {len(plan.jobs)} shards to write ({clips:,} clips), {plan.done} done"]
    if plan.stale:
        lines.append(f"{len(plan.stale)} obsolete shards to remove")
    if plan.absent:
        lines.append(f"{plan.absent:,} clips lack a feature and would be left out")
    return lines


def extraction_bytes(folder: DatasetDir, plan: Plan) -> int:
    """Most bytes that the shards of a plan take: compression makes them fewer.

    Lengths are those of earlier runs or of the clip list; of other clips, the mean.
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
    """Most bytes that the shards of an alignment take."""
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
    """The bytes that are needed at most and those that are free, in words."""
    free = free_bytes(folder)
    verdict = "enough" if needed <= free else "may not be enough"
    return f"disk: at most {_in_words(needed)} needed, {_in_words(free)} free: {verdict}"


def warn_of_space(folder: Path, needed: int) -> None:
    """Warn if the disk may become full; a run that fills it can be resumed."""
    if needed > free_bytes(folder):
        warn(f"{folder}: {describe_space(folder, needed)}")


def _in_words(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _declared_s(clip: Clip) -> float | None:
    """The clip's declared length; less, with a warning, if its file cannot be so long."""
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
    """Mean length of some of the clips, as their files declare it."""
    lengths = []
    with closing(ChildProcess(length_s, timeout_s=3.0)) as read:
        for clip in clips[:: max(1, len(clips) // _SAMPLE)]:
            with suppress(ChildDied):
                if (length := read(clip)) is not None:
                    lengths.append(min(length, _LONG_S))
    return mean(lengths) if lengths else _CLIP_S
