"""A whole extraction: the clip list, the shards on one machine or many, the account."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.console import progress, say, warn
from featreg.datasets.shards.native import Failure, native_shard
from featreg.datasets.shards.workdir import DatasetDir

from .dask_pool import Workers, run_jobs
from .estimate import Rates
from .isolate_clips import EveryClipFailed
from .plan import Plan, ShardJob, ShardResult
from .shard_job import extract_shard

# Stage of the clips that their dataset knows to be unusable.
KNOWN = "published"

# Workers that are named one by one at the end of a run.
_FEW = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """What an extraction came to; `str` of it is for people.

    Attributes
    ----------
    clips
        Clips with rows of every feature, those of earlier runs included.
    failed
        Clips without rows of some feature, or of all.
    known_bad
        Clips that the dataset knows to be unusable, which were left out.
    new_clips, audio_s, wall_s, written
        Of this run alone: clips, seconds of audio, seconds that passed, bytes.
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
    """Do what a plan asks, and write the clip list and ``failures.csv``.

    Shards that the plan calls stale are removed once all is done.

    Parameters
    ----------
    dataset
        All clips of it, whether or not the plan has them.
    folder
        The dataset's folder, held by this process.
    features
        As they were asked for, in order; alignment keeps this order.
    plan
        What to do, and what is done.
    workers
        Who does it.
    clip_timeout_s
        Seconds after which the decoding of a clip, or a call of a network, is given up.

    Raises
    ------
    FeatregError
        If it cannot go on: the disk is full, the cluster is lost.
    """
    begin = time.perf_counter()
    known = folder.read_durations()
    folder.write_dataset(dataset, features, known)
    jobs = [
        replace(job, threads=workers.threads, clip_timeout_s=clip_timeout_s) for job in plan.jobs
    ]
    accounts: list[ShardResult] = []
    try:
        with progress("extract", sum(len(job.clips) for job in jobs)) as advance:
            for job, account in _accounts(jobs, workers):
                accounts.append(account)
                for note in account.notes:
                    warn(note)
                advance(len(job.clips))
    except BaseException:
        # What is known so far is worth a line each, if a line can still be written.
        with suppress(FeatregError):
            _record(dataset, folder, features, [*plan.done, *accounts], known, whole=False)
        raise
    # Only now, when the rows that take their place are written.
    for path in plan.stale:
        path.unlink()
    if plan.stale:
        say(f"{len(plan.stale)} shards removed in which no clip belongs any more")
    everything = [*plan.done, *accounts]
    failed = _record(dataset, folder, features, everything, known, whole=True)
    heard = {key for account in everything for key in account.durations}
    summary = _summarize(accounts, time.perf_counter() - begin)
    if accounts:
        Rates.of(folder).learn(plan.jobs, accounts).write(folder)
    return replace(
        summary,
        clips=len(heard - failed),
        failed=len(failed),
        known_bad=len(dataset.known_bad),
    )


def _accounts(jobs: Sequence[ShardJob], workers: Workers) -> Iterator[tuple[ShardJob, ShardResult]]:
    """The account of each job, also of those that broke.

    Raises
    ------
    FeatregError
        If a job met what every other one would meet too.
    """

    def again(job: ShardJob, error: Exception) -> ShardJob | None:
        if isinstance(error, FeatregError) or job.careful:
            return None
        say(f"{job}: {_in_words(error)}; its clips are tried one by one")
        return replace(job, careful=True)

    for job, outcome in run_jobs(extract_shard, jobs, workers, again):
        if isinstance(outcome, FeatregError):
            raise outcome
        if isinstance(outcome, Exception):
            reason = f"the whole shard failed: {_in_words(outcome)}"
            say(f"{job}: {reason}")
            lost = tuple(Failure(clip.clip_id, "extract", reason, "") for clip in job.clips)
            outcome = ShardResult({}, lost, tried=len(lost))
        yield job, outcome


def _in_words(error: Exception) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its workers died of it, or were killed"
    if isinstance(error, EveryClipFailed):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _record(
    dataset: Dataset,
    folder: DatasetDir,
    features: Sequence[str],
    accounts: Sequence[ShardResult],
    known: dict[str, float],
    whole: bool,
) -> set[str]:
    """Write what became of the clips; return those that failed.

    Where `accounts` are `whole`, they say of these features whatever their shards would.
    """
    failures = [failure for account in accounts for failure in account.failures]
    durations = {key: s for account in accounts for key, s in account.durations.items()}
    failed = {failure.clip_id for failure in failures}
    # Of a feature that this run was not asked for, the shards alone remember who failed.
    stored = _stored_failures(dataset, folder, features if whole else ())
    lines = [(each.clip_id, each.stage, each.reason) for each in [*failures, *stored]]
    lines += [
        (clip_id, KNOWN, "known to be unusable as published") for clip_id in dataset.known_bad
    ]
    folder.write_failures(lines, judged=durations.keys() | failed)
    folder.write_dataset(dataset, features, known | durations)
    return failed


def _stored_failures(dataset: Dataset, folder: DatasetDir, but: Sequence[str]) -> list[Failure]:
    """Failures that the native shards of all features but these hold, of the dataset's clips."""
    clips = {clip.clip_id for clip in dataset.clips}
    found: list[Failure] = []
    for path in folder.path.glob("native/*/*.h5"):
        if path.parent.name in but:
            continue
        with suppress(FeatregError), native_shard(path) as shard:  # a damaged one is redone
            found += [each for each in shard.failures if each.clip_id in clips]
    return found


def _summarize(accounts: Sequence[ShardResult], wall_s: float) -> Summary:
    stages: defaultdict[str, float] = defaultdict(float)
    peaks: Counter[str] = Counter()
    for account in accounts:
        for stage, seconds in account.seconds.items():
            stages[stage] += seconds
        if account.worker:
            peaks[account.worker] = max(peaks[account.worker], account.peak_bytes)
    return Summary(
        clips=0,
        failed=0,
        new_clips=sum(account.tried for account in accounts),
        audio_s=sum(account.audio_s for account in accounts),
        wall_s=wall_s,
        written=sum(sum(account.written.values()) for account in accounts),
        stages=dict(stages),
        peak_bytes=dict(peaks),
    )
