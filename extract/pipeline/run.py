"""Run of an extraction: write the clip list, run the jobs, record failures, summarize."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.console import counted, progress, say
from featreg.datasets.scarcity import scarcity
from featreg.datasets.shards.native import Failure
from featreg.datasets.shards.native_index import read_native_index
from featreg.datasets.shards.workdir import DatasetDir

from .dask_pool import Workers, run_jobs
from .isolate_clips import EveryClipFailed
from .plan import Plan, ShardJob, ShardResult
from .shard_job import extract_shard


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of an extraction; `str` gives the printed text.

    Attributes
    ----------
    clips
        Number of clips with all features, including those of earlier runs.
    failed
        Number of clips without frames of at least one feature.
    known_bad
        Number of omitted clips that are known to be unusable as published.
    new_clips, audio_s, wall_s, written
        Clips, seconds of audio, elapsed seconds and written bytes of this run.
    stages
        Seconds that each stage took in this run, summed over workers.
    peak_bytes
        Highest peak memory of a worker in bytes, including its decoders.
    """

    clips: int
    failed: int
    known_bad: int
    new_clips: int
    audio_s: float
    wall_s: float
    written: int
    stages: dict[str, float]
    peak_bytes: int

    def __str__(self) -> str:
        total = self.clips + self.failed
        lines = [f"{counted(self.clips, 'clip')} extracted, {self.failed:,} failed, of {total:,}"]
        if self.known_bad:
            verb = "is" if self.known_bad == 1 else "are"
            lines[0] += f"; {self.known_bad:,} more {verb} known to be unusable as published"
        if not self.new_clips:
            return f"{lines[0]}; nothing new to do"
        speed = self.audio_s / self.wall_s
        lines.append(
            f"this run: {counted(self.new_clips, 'clip')}, "
            f"{self.audio_s / 3600:.2f} h of audio in "
            f"{self.wall_s:.1f} s ({speed:.0f} times real time), {self.written / 1e6:,.1f} MB"
        )
        stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in self.stages.items())
        lines.append(f"stages, summed over workers: {stages}")
        lines.append(f"peak memory of a worker: {self.peak_bytes / 1e6:,.0f} MB")
        return "\n".join(lines)


def run_extraction(
    dataset: Dataset,
    folder: DatasetDir,
    features: Sequence[str],
    plan: Plan,
    workers: Workers,
    clip_timeout_s: float = 600.0,
) -> Summary:
    """Run a plan's jobs, and write the clip list and ``failures.csv``.

    Obsolete shards of the plan are removed once all jobs are done.

    Parameters
    ----------
    dataset
        The dataset with all its clips.
    folder
        Folder of the dataset, locked by this process.
    features
        Features in the requested order, which alignment keeps.
    plan
        Plan of the extraction.
    workers
        Workers to use.
    clip_timeout_s
        Time limit in seconds for decoding a clip, or for one call of a network.

    Raises
    ------
    FeatregError
        If the run cannot continue, for example if the disk is full or the cluster is lost.
    """
    begin = time.perf_counter()
    known = folder.read_durations()
    folder.write_dataset(dataset, features, known, plan.limits)
    jobs = [
        replace(job, threads=workers.threads, clip_timeout_s=clip_timeout_s) for job in plan.jobs
    ]
    results: list[ShardResult] = []
    try:
        with progress("extract", sum(len(job.clips) for job in jobs)) as advance:
            for job, result in _results(jobs, workers):
                results.append(result)
                advance(len(job.clips))
    except BaseException:
        # Record the results so far, if the disk is still writable.
        with suppress(FeatregError):
            _record(dataset, folder, features, plan, results, known)
        raise
    # Only now, because all frames that replace them are written.
    if plan.obsolete and all(result.worker for result in results):
        for path in plan.obsolete:
            path.unlink()
        say(f"{counted(len(plan.obsolete), 'obsolete shard')} removed")
    failed = _record(dataset, folder, features, plan, results, known)
    decoded = {key for result in (plan.done, *results) for key in result.durations}
    stages: dict[str, float] = {}
    for result in results:
        for stage, seconds in result.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return Summary(
        clips=len(decoded - failed),
        failed=len(failed),
        known_bad=len(dataset.known_bad),
        new_clips=sum(len(job.clips) for job in jobs),
        audio_s=sum(sum(result.durations.values()) for result in results),
        wall_s=time.perf_counter() - begin,
        written=sum(sum(result.written.values()) for result in results),
        stages=stages,
        peak_bytes=max((result.peak_bytes for result in results), default=0),
    )


def _results(jobs: Sequence[ShardJob], workers: Workers) -> Iterator[tuple[ShardJob, ShardResult]]:
    """Yield the result of each job; if a job fails as a whole, all of its clips have failed.

    Jobs that fail are repeated at the end, with each clip tried in a process of its own first.

    Raises
    ------
    FeatregError
        If a job failed for a reason that affects all jobs: a full disk, no more memory.
    """
    repeated = []
    for job, outcome in run_jobs(extract_shard, jobs, workers):
        if isinstance(outcome, FeatregError):
            raise outcome
        if isinstance(outcome, Exception):
            say(f"{job}: {_in_words(outcome)}; trying its clips one by one at the end")
            repeated.append(replace(job, isolate=True))
        else:
            yield job, outcome
    for job, outcome in run_jobs(extract_shard, repeated, workers):
        if isinstance(outcome, FeatregError):
            raise outcome
        if isinstance(outcome, Exception):
            if reason := scarcity(outcome):
                raise FeatregError(f"{job}: {reason}")
            reason = f"the whole shard failed: {_in_words(outcome)}"
            say(f"{job}: {reason}")
            lost = tuple(Failure(clip.clip_id, "extract", reason, "") for clip in job.clips)
            outcome = ShardResult({}, lost)
        yield job, outcome


def _in_words(error: Exception) -> str:
    if type(error).__name__ == "KilledWorker":
        return "the worker process crashed or was killed"
    if isinstance(error, EveryClipFailed):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _record(
    dataset: Dataset,
    folder: DatasetDir,
    features: Sequence[str],
    plan: Plan,
    results: Sequence[ShardResult],
    known: dict[str, float],
) -> set[str]:
    """Write the clip list and the failures; return the ids of the failed clips."""
    all_results = [plan.done, *results]
    failures = [failure for result in all_results for failure in result.failures]
    durations = {key: s for result in all_results for key, s in result.durations.items()}
    failed = {failure.clip_id for failure in failures}
    # The failures of other features are in their shards.
    for path in folder.path.glob("native/*"):
        if path.name not in features:
            held = read_native_index(path).clips().values()
            failures += [each.failure for each in held if each.failure is not None]
    ids = {clip.clip_id for clip in dataset.clips}
    lines = [(each.clip_id, each.stage, each.reason) for each in failures if each.clip_id in ids]
    reason = "known to be unusable as published"
    lines += [(clip_id, "published", reason) for clip_id in dataset.known_bad]
    folder.write_failures(lines, judged=durations.keys() | failed)
    folder.write_dataset(dataset, features, known | durations, plan.limits)
    return failed
