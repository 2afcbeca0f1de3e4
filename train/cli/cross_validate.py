"""``train cross-validate``: one method on every fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featreg.datasets.console import work_option

from ..config.fold_options import folds_options
from ..config.options import alpha_option, config_options, workers_option
from ..config.probe_options import pool_option
from ..report.print_table import print_table
from .experiments import fresh_option, jobs_option, seeds_option


def attach(group: click.Group) -> None:
    """Add the command to a group."""
    group.add_command(cross_validate)


@click.command("cross-validate")
@folds_options
@click.option("--probe", is_flag=True, help="Fit probes, as `train probe`, instead of networks.")
@click.option("--mlp", is_flag=True, help="With --probe, fit a small multilayer perceptron.")
@pool_option
@seeds_option
@alpha_option
@jobs_option
@fresh_option
@config_options
@workers_option
@work_option
def cross_validate(
    folds: int | None,
    fold_seed: int,
    probe: bool,
    mlp: bool,
    pool: str,
    seeds: int,
    jobs: int | None,
    fresh: bool,
    device: str,
    workers: int,
    work: Path,
    **options: Any,
) -> None:
    """Train and test one method on every fold.

    Each fold is tested once, by a model that was trained on the other folds and validated on the
    fold before it. The folds are those of the dataset (UrbanSound8K and ESC-50 publish theirs), or
    are made with --folds. Nothing is extracted or aligned again. Finished runs are not repeated,
    so that the same command resumes an interrupted cross-validation. The table is written to
    WORK/reports as CSV.

    \b
    Example:
        train cross-validate --dataset esc50 --reg hint
        train cross-validate --probe --folds 5 --group clips.csv:source
    """
    from featreg.datasets.base import UsageError

    from ..config.options import configure
    from ..config.probe_options import configure_probe
    from ..experiments import cross_validate as validation
    from ..experiments.differences import notes
    from ..experiments.select_runs import refuse_damaged
    from ..experiments.sweep import Runner
    from ..training.build import resolve_device

    if probe and (options["reg"], options["fusion"]) != ("none", "none"):
        raise UsageError("--probe: a probe uses the features alone; omit --reg and --fusion")
    if mlp and not probe:
        raise UsageError("--mlp: only with --probe")
    where = resolve_device(device)
    if probe:
        config = configure_probe(work, {**options, "mlp": mlp, "pool": pool})
    else:
        config = configure(work, where, options)
    plans = validation.plan(config, work, folds, fold_seed, seeds)
    runner = Runner(work, where, jobs, workers, fresh)
    runner.run(each for seeded in plans for each in seeded)
    found = validation.every_fold(runner.groups(plans))
    rows = validation.table(found)
    print_table(rows)
    for note in notes([found]):
        click.echo(note)
    click.echo(f"table: {validation.write(rows, found, work / 'reports')}")
    refuse_damaged(runner.damaged)
