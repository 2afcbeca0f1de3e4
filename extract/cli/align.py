"""``prep align``: resample the extracted features to one time grid."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from featreg.datasets.console import counted, progress, say, warn, work_option

_MODES = click.Choice(["repeat", "area", "linear"])


@click.command()
@click.option(
    "--resolution",
    type=float,
    required=True,
    metavar="SECONDS",
    help="Target resolution of the aligned features, in seconds per frame.",
)
@click.option(
    "--features",
    help="Features to concatenate, separated by commas.  [default: all extracted features]",
)
@click.option(
    "--mode",
    type=_MODES,
    default="repeat",
    help="Resampling in time: whole-number repetition or averaging, as in the paper (repeat), mean "
    "over each target frame (area), or linear interpolation (linear).",
)
@click.option("--dataset", help="Dataset in the working folder.  [default: the only one]")
@click.option("--workers", type=int, help="Number of worker processes.  [default: one per core]")
@click.option("--scheduler", help="Address of a Dask cluster to use instead of local workers.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the shards to write and the required disk space, and exit.",
)
@work_option
def align(
    resolution: float,
    features: str | None,
    mode: str,
    dataset: str | None,
    workers: int | None,
    scheduler: str | None,
    dry_run: bool,
    work: Path,
) -> None:
    """Resample the extracted features to one time grid and store them in aligned shards.

    \b
    Example:
        prep align --resolution 0.1
    """
    from featreg.datasets.base import FeatregError
    from featreg.datasets.shards.hdf5 import DiskError
    from featreg.datasets.shards.workdir import DatasetDir, choose_dataset

    from ..alignment.align_shards import align_shard, plan_alignment
    from ..extractors.feature_options import parse_names
    from ..pipeline.dask_pool import plan_workers, run_jobs
    from ..pipeline.dry_run import (
        alignment_bytes,
        describe_alignment,
        describe_space,
        warn_of_space,
    )

    folder = DatasetDir(choose_dataset(work, dataset).path.absolute())
    names = parse_names(features) if features else []
    with nullcontext() if dry_run else folder.exclusive():
        plan = plan_alignment(folder, names, resolution, mode)  # type: ignore[arg-type]
        team = plan_workers(len(plan.jobs), workers, scheduler, alone=False)
        needed = alignment_bytes(plan)
        if dry_run:
            for line in (*describe_alignment(plan), describe_space(folder.path, needed)):
                click.echo(line)
            return
        warn_of_space(folder.path, needed)
        for path in plan.stale:
            path.unlink()
        failures = []
        with progress("align", len(plan.jobs)) as advance:
            for job, outcome in run_jobs(align_shard, plan.jobs, team):
                if isinstance(outcome, DiskError):
                    raise outcome
                if isinstance(outcome, Exception):
                    failures.append(f"{job.target}: {outcome}")
                advance()
    if failures:
        count = counted(len(failures), "shard")
        raise FeatregError(f"{count} could not be written; the first: {failures[0]}")
    if plan.absent:
        warn(f"{counted(plan.absent, 'clip')} omitted because a feature is missing")
    for note in folder.read_dataset().notes:
        warn(note)
    written = counted(len(plan.jobs), "shard")
    say(
        f"{counted(plan.clips, 'clip')} in {plan.target}: {written} written, {plan.done} up to date"
    )
