"""A whole extraction: write the clip list, run the jobs, record failures, summarize."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.console import progress, say
from featreg.datasets.scarcity import scarcity
from featreg.datasets.shards.native import Failure
from featreg.datasets.shards.native_index import read_native_index
from featreg.datasets.shards.workdir import DatasetDir

from .dask_pool import Workers, run_jobs
from .isolate_clips import EveryClipFailed
from .plan import Plan, ShardJob, ShardResult
from .shard_job import extract_shard

# Stage of the clips that their dataset knows to be unusable.
KNOWN = "published"

# Up to so many workers are listed one by one in the summary.
_FEW = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of an extraction; `str` of it is for people.

    Attributes
    ----------
    clips
        Clips with frames of every feature, those of earlier runs included.
    failed
        Clips without frames of some feature, or of all.
    known_bad
        Clips that the dataset knows to be unusable, which were left out.
    new_clips, audio_s, wall_s, written
        Of this run alone: clips, seconds of audio, elapsed seconds, bytes.
    stages
        Seconds that each stage took in this run, summed over workers.
    peak_bytes
        The most memory that each worker had, its decoders included.
    """

    clips: int
    failed: int
    known_bad: int = 0
    new_clips: int = 0
    audio_s: float = 0.0
    wall_s: float = 0.0
    written: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        total = self.clips + self.failed
        lines = [f"{self.clips:,} clips extracted, {self.failed:,} failed, of {total:,}"]
        if self.known_bad:
            lines[0] += f"; {self.known_bad:,} more are known to be unusable as published"
        if not self.new_clips:
            return f"{lines[0]}; nothing new to do"
        speed = self.audio_s / self.wall_s
        lines.append(
            f"this run: {self.new_clips:,} clips, {self.audio_s / 3600:.2f} h of audio in "
            f"{self.wall_s:.1f} s ({speed:.0f} times real time), {self.written / 1e6:,.1f} MB"
        )
        stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in self.stages.items())
        lines.append(f"stages, summed over {len(self.peak_bytes)} workers: {stages}")
        if self.peak_bytes:
            lines.append(f"most memory of each worker: {self._peaks()}")
        return "\n".join(lines)

    def _peaks(self) -> str:
        """What each worker had at most; of many, the range and who had the most."""
        if len(self.peak_bytes) <= _FEW:
            peaks = (f"{name} {_megabytes(peak)}" for name, peak in sorted(self.peak_bytes.items()))
            return ", ".join(peaks)
        least = min(self.peak_bytes.values())
        name, most = max(self.peak_bytes.items(), key=lambda each: each[1])
        return f"{_megabytes(least)} to {_megabytes(most)} ({name})"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def run_extraction(
    dataset: Dataset,
    folder: DatasetDir,
    features: Sequence[str],
    plan: Plan,
    workers: Workers,
    clip_timeout_s: float = 600.0,
) -> Summary:
    """Run a plan's jobs, and write the clip list and ``failures.csv``.

    Shards that the plan calls obsolete are removed once all jobs are done.

    Parameters
    ----------
    dataset
        All its clips, whether or not the plan has them.
    folder
        The dataset's folder, held by this process.
    features
        In the order asked for; alignment keeps this order.
    plan
        What to do, and what is done.
    workers
        Who does it.
    clip_timeout_s
        Longest time in seconds for decoding a clip, or for one call of a network.

    Raises
    ------
    FeatregError
        If the run cannot go on: the disk is full, the cluster is lost.
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
        # Record what is known so far, if the disk still takes it.
        with suppress(FeatregError):
            _record(dataset, folder, features, plan, results, known)
        raise
    # Only now, when the frames that replace them are written.
    if all(result.worker for result in results):
        for path in plan.obsolete:
            path.unlink()
        if plan.obsolete:
            say(f"obsolete shards removed: {len(plan.obsolete)}")
    failed = _record(dataset, folder, features, plan, results, known)
    decoded = {key for result in (plan.done, *results) for key in result.durations}
    return replace(
        _summarize(results, time.perf_counter() - begin),
        clips=len(decoded - failed),
        failed=len(failed),
        known_bad=len(dataset.known_bad),
    )


def _results(jobs: Sequence[ShardJob], workers: Workers) -> Iterator[tuple[ShardJob, ShardResult]]:
    """The result of each job; a job that fails as a whole is one whose every clip failed.

    Raises
    ------
    FeatregError
        If a job met what every other job would meet too: a full disk, no more memory.
    """

    def again(job: ShardJob, error: Exception) -> ShardJob | None:
        if isinstance(error, FeatregError) or job.isolate:
            return None
        say(f"{job}: {_in_words(error)}; its clips are tried one by one")
        return replace(job, isolate=True)

    for job, outcome in run_jobs(extract_shard, jobs, workers, again):
        if isinstance(outcome, FeatregError):
            raise outcome
        if isinstance(outcome, Exception) and (reason := scarcity(outcome)):
            raise FeatregError(f"{job}: {reason}")
        if isinstance(outcome, Exception):
            reason = f"the whole shard failed: {_in_words(outcome)}"
            say(f"{job}: {reason}")
            lost = tuple(Failure(clip.clip_id, "extract", reason, "") for clip in job.clips)
            outcome = ShardResult({}, lost, tried=len(lost))
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
    """Write what became of the clips; return those that failed."""
    everything = [plan.done, *results]
    failures = [failure for result in everything for failure in result.failures]
    durations = {key: s for result in everything for key, s in result.durations.items()}
    failed = {failure.clip_id for failure in failures}
    # Failures of features that this run was not asked for are in their shards.
    clip_ids = {clip.clip_id for clip in dataset.clips}
    for path in folder.path.glob("native/*"):
        if path.name not in features:
            held = read_native_index(path).clips().values()
            failures += [each.failure for each in held if each.failure is not None]
    lines = [(each.clip_id, each.stage, each.reason) for each in failures]
    lines = [line for line in lines if line[0] in clip_ids]
    lines += [
        (clip_id, KNOWN, "known to be unusable as published") for clip_id in dataset.known_bad
    ]
    folder.write_failures(lines, judged=durations.keys() | failed)
    folder.write_dataset(dataset, features, known | durations, plan.limits)
    return failed


def _summarize(results: Sequence[ShardResult], wall_s: float) -> Summary:
    stages: defaultdict[str, float] = defaultdict(float)
    peaks: Counter[str] = Counter()
    for result in results:
        for stage, seconds in result.seconds.items():
            stages[stage] += seconds
        if result.worker:
            peaks[result.worker] = max(peaks[result.worker], result.peak_bytes)
    return Summary(
        clips=0,
        failed=0,
        new_clips=sum(result.tried for result in results),
        audio_s=sum(result.audio_s for result in results),
        wall_s=wall_s,
        written=sum(sum(result.written.values()) for result in results),
        stages=dict(stages),
        peak_bytes=dict(peaks),
    )
