"""A whole extraction: the clip list, the shards on one machine or many, the account."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from featreg.datasets.base import Dataset
from featreg.datasets.console import progress, say
from featreg.datasets.native import Failure
from featreg.datasets.workdir import DatasetDir

from .cluster import Workers, run_jobs
from .pipeline import extract_shard
from .plan import Account, Plan, ShardJob


@dataclass(frozen=True, slots=True)
class Summary:
    """What an extraction came to; `str` of it is for people.

    Attributes
    ----------
    clips
        Clips with rows of every feature, those of earlier runs included.
    failed
        Clips without rows of some feature, or of all.
    new_clips, audio_s, wall_s, written
        Of this run alone: clips, their seconds, seconds that passed, bytes.
    stages
        Seconds that each stage took in this run, summed over workers.
    """

    clips: int
    failed: int
    new_clips: int
    audio_s: float
    wall_s: float
    written: int
    stages: dict[str, float]

    def __str__(self) -> str:
        counts = f"{self.clips} clips extracted, {self.failed} failed"
        if not self.new_clips:
            return f"{counts}; nothing new to do"
        stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in self.stages.items())
        return (
            f"{counts}; this run: {self.new_clips} clips, {self.audio_s / 3600:.2f} h of audio "
            f"in {self.wall_s:.1f} s ({self.audio_s / self.wall_s:.0f} times real time), "
            f"{self.written / 1e6:.1f} MB written; {stages}"
        )


def run_extraction(
    dataset: Dataset, folder: DatasetDir, features: Sequence[str], plan: Plan, workers: Workers
) -> Summary:
    """Do what a plan asks, and write the clip list and ``failures.csv``.

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
    """
    begin = time.perf_counter()
    folder.write_dataset(dataset, features)
    accounts: list[Account] = []
    total = sum(job.clips for job in plan.jobs)
    with progress("extract", total) as advance:
        for job, outcome in run_jobs(extract_shard, plan.jobs, workers):
            account = _lost(job, folder, outcome) if isinstance(outcome, Exception) else outcome
            accounts.append(account)
            advance(job.clips)
    everything = [*plan.done, *accounts]
    failures = [failure for account in everything for failure in account.failures]
    failed = folder.write_failures(failures)
    durations = {key: s for account in everything for key, s in account.durations.items()}
    folder.write_dataset(dataset, features, durations)
    stages: defaultdict[str, float] = defaultdict(float)
    for account in accounts:
        for stage, seconds in account.seconds.items():
            stages[stage] += seconds
    return Summary(
        clips=len(durations.keys() - {failure.clip_id for failure in failures}),
        failed=failed,
        new_clips=total,
        audio_s=sum(seconds for account in accounts for seconds in account.durations.values()),
        wall_s=time.perf_counter() - begin,
        written=sum(account.written for account in accounts),
        stages=dict(stages),
    )


def _lost(job: ShardJob, folder: DatasetDir, error: Exception) -> Account:
    """The account of a shard whose job broke: none of its clips has rows."""
    reason = f"the whole shard failed, {type(error).__name__}: {error}".splitlines()[0]
    say(f"{job.split} shard {job.index}: {reason}")
    clips = folder.read_clips(job.split, job.first, job.last)
    return Account({}, tuple(Failure(clip.clip_id, "extract", reason, "") for clip in clips))
