"""``train study``: several methods, fractions of the labels and seeds from one recipe."""

from __future__ import annotations

from pathlib import Path

import click

from featreg.datasets.console import say, work_option

from ..report.print_table import print_table
from .experiments import jobs_option


def attach(group: click.Group) -> None:
    """Add the command to a group."""
    group.add_command(study_command)


@click.command("study")
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@jobs_option
@click.option("--table-only", is_flag=True, help="Train nothing; print the table of finished runs.")
@work_option
def study_command(recipe: Path, jobs: int | None, table_only: bool, work: Path) -> None:
    """Compare methods over fractions of the labels and seeds.

    RECIPE is a YAML file that lists them; benchmarks/few-labels.yaml is a recipe with comments.
    Finished runs are not repeated, so that the same command resumes an interrupted study. The
    table has test metrics with 95 % intervals from resampled groups of clips and seeds, and is
    written to WORK/reports with a figure.

    \b
    Example:
        train study benchmarks/few-labels.yaml --jobs 2
    """
    from ..evaluation.metrics import METRICS
    from ..experiments.study import pretrainings, read_study, run_all, runs
    from ..experiments.study_table import formatted, table, write
    from ..experiments.sweep import environments
    from ..training.build import resolve_device

    study = read_study(recipe)
    if not table_only:
        places = environments(resolve_device("auto"), 1, jobs)
        run_all(work, pretrainings(study), places)
        run_all(work, list(runs(study)), places)
    found = table(work, study)
    for metric in found["metric"].unique():
        say(f"test {METRICS[metric].title}, mean and 95 % interval:")
        print_table(formatted(found, metric))
    for path in write(found, work / "reports", study.name):
        say(f"written: {path}")
