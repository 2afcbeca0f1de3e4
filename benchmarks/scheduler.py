"""Throughput of the Dask scheduler for jobs that take no time.

    python benchmarks/scheduler.py --shards 100000

As in `prep extract`, each job of 64 clips is sent to a worker and returns a result for 64 clips,
but without the work. This measures the maximum number of shards per second of a scheduler, and
the memory of the scheduler and of the submitting process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from featreg.datasets.base import Clip, Dataset
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.extractors.registry import FeatureSpec, make_config
from featreg.extract.pipeline.child_process import peak_bytes
from featreg.extract.pipeline.dask_pool import Workers, pack, run_jobs
from featreg.extract.pipeline.plan import Request, ShardJob, ShardResult, make_plan
from featreg.extract.pipeline.shard_job import extract_shard

CLIPS = 64
NOTHING = np.empty(0, np.uint8)


def make_jobs(shards: int) -> Iterator[ShardJob]:
    """Jobs whose clips have ids of eleven characters, as in AudioSet."""
    request = Request(
        tuple(FeatureSpec(name, make_config(name, {})) for name in ("audio", "vggish"))
    )
    folder = DatasetDir(Path("/shared/featreg-work/audioset"))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"))
    rng = np.random.default_rng(0)
    for index in range(shards):
        names = ["".join(row) for row in letters[rng.integers(0, 64, (CLIPS, 11))]]
        clips = tuple(
            Clip(name, Path(f"/shared/audioset/audio/{name}.mp3"), "train", NOTHING, NOTHING)
            for name in names
        )
        yield ShardJob(folder, clips, request, {"audio": index, "vggish": index})


def account(job: ShardJob) -> ShardResult:
    """Result of a worker, without the work."""
    return ShardResult({clip.clip_id: 10.0 for clip in job.clips}, ())


def plan(clips: int) -> None:
    """Time and memory to list clips and to plan their shards, without existing shards."""
    label = np.zeros(50, np.uint8)
    before, begin = peak_bytes(), time.perf_counter()
    dataset = Dataset(
        "audioset",
        tuple(f"class {k}" for k in range(50)),
        tuple(
            replace(clip, label=label.copy(), label_mask=label.copy())
            for job in make_jobs(-(-clips // CLIPS))
            for clip in job.clips
        ),
    )
    listed = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = DatasetDir(Path(name) / "audioset")
        folder.write_dataset(dataset, ["audio"])
        jobs = make_plan(
            dataset, folder, Request((FeatureSpec("audio", make_config("audio", {})),))
        ).jobs
    planned = time.perf_counter()
    count = len(dataset.clips)
    click.echo(
        f"{count:,} clips, {len(jobs):,} shards: listed in {listed - begin:.1f} s, written and "
        f"planned in {planned - listed:.1f} s, {(peak_bytes() - before) / count:.0f} bytes a clip"
    )


@click.command(context_settings={"show_default": True})
@click.option("--shards", default=10_000, help="Of 64 clips each.")
@click.option("--workers", default=os.cpu_count() or 1, help="Processes.")
def main(shards: int, workers: int) -> None:
    """Measure the throughput of jobs that take no time.

    Example: python benchmarks/scheduler.py --shards 100000
    """
    sizes = [len(pack(extract_shard, job)) for job in make_jobs(-(-25_000 // CLIPS))]
    click.echo(f"25,000 clips travel as {len(sizes)} jobs of {np.mean(sizes):.0f} bytes, "
               f"{sum(sizes) / 1e6:.2f} MB in all")  # fmt: skip
    before = peak_bytes()
    done_jobs = run_jobs(account, make_jobs(shards), Workers(workers, 1))
    next(done_jobs)  # the cluster has started
    begin = time.perf_counter()
    for done, (_, outcome) in enumerate(done_jobs, 2):
        assert isinstance(outcome, ShardResult)
        if done * 10 % shards < 10:
            took = time.perf_counter() - begin
            click.echo(
                f"  {done:7,} shards, {(done - 1) / took:5.0f} a second; scheduler and submitter "
                f"{peak_bytes() / 1e6:.0f} MB ({(peak_bytes() - before) / 1e6:.0f} MB more than "
                "before)"
            )
    plan(min(shards, 3200) * CLIPS)


if __name__ == "__main__":
    main()
