"""Commands on several runs: ``compare``, ``table1``, ``ablate``, ``choose-alpha``, ``params``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.console import warn, work_option

from ..config.option_types import Combined
from ..config.options import alpha_option, config_options, shared_options, workers_option
from ..models.registry import ENCODERS
from ..regularizers.registry import REGULARIZERS
from ..report.print_table import print_table

if TYPE_CHECKING:
    from ..config.config import Config
    from ..experiments.choose_alpha import Choice
    from ..experiments.sweep import Runner

seeds_option = click.option(
    "--seeds", type=click.IntRange(1), default=1, help="Number of seeds, that is runs, per method."
)
_ALPHAS = click.option(
    "--alphas",
    help="Weights of the regularizer to try, such as 0.1,0.3,1; the best on the validation split "
    "is used.  [default: only the preset's, else the paper's]",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Number of parallel runs, each with its share of GPUs and cores.  "
    "[default: one per GPU, or one per 4 CPU cores]",
)
fresh_option = click.option("--fresh", is_flag=True, help="Train again even if runs are finished.")


def attach(group: click.Group) -> None:
    """Add these commands to a group."""
    several = (compare, table1_command, ablate_command, choose_alpha_command, params)
    for command in (*several, run_config):
        group.add_command(command)


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--dataset", help="Dataset of the runs.  [default: the only one with runs]")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="HTML file to write.  [default: WORK/reports/DATASET.html]",
)
@work_option
def compare(runs: tuple[str, ...], dataset: str | None, report: Path | None, work: Path) -> None:
    """Compare finished RUNS in a table and an HTML report.

    Runs that differ only in their seeds are one row, with mean and standard deviation. Without
    RUNS, the report contains all runs, and the results of `table1`, `ablate` and `params --save`.
    Runs with damaged files are named and skipped, and the exit status is 1.

    \b
    Example:
        train compare demo-baseline-s0 demo-conreg-musicnn-a0.3-s0
    """
    from ..experiments.compare import load, table
    from ..experiments.differences import alphas, ceilings, differences, notes
    from ..experiments.select_runs import refuse_damaged
    from ..report.html import write_report

    groups, damaged = load(work, runs, dataset)
    print_table(table(groups))
    for sentence in differences(groups) + ceilings(groups) + alphas(groups) + notes(groups):
        click.echo(sentence)
    path = report or work / "reports" / f"{groups[0].config.dataset}.html"
    write_report(path, groups, None if runs else work / "reports")
    click.echo(f"report: {path}")
    refuse_damaged(damaged)


@click.command("table1")
@click.option(
    "--dataset",
    "datasets",
    help="Datasets in the working folder, such as mtat,dcase2017.  [default: all aligned ones]",
)
@click.option("--aligned", help="Aligned set of each dataset.  [default: the only one]")
@click.option(
    "--features",
    help="Feature sets, such as vggish,openl3,vggish+openl3.  [default: each aligned feature, and "
    "all of them combined]",
)
@seeds_option
@_ALPHAS
@click.option(
    "--printed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file of the paper's numbers, with the columns dataset, method, features and value.  "
    "[default: the numbers that featreg contains]",
)
@jobs_option
@fresh_option
@shared_options
@workers_option
@work_option
def table1_command(
    datasets: str | None,
    features: str | None,
    seeds: int,
    alphas: str | None,
    printed: Path | None,
    jobs: int | None,
    fresh: bool,
    device: str,
    workers: int,
    work: Path,
    **options: Any,
) -> None:
    """Train every method with every feature set (Table I).

    All datasets with aligned features are used by default. Finished runs are not repeated, so that
    the same command resumes an interrupted table. The table is written to WORK/reports as CSV,
    Markdown and HTML, including the rows of other datasets whose runs exist.

    \b
    Example:
        train table1 --dataset mtat --seeds 3 --alphas 0.3,1,5
    """
    from ..experiments import table1
    from ..experiments.choose_alpha import read_alphas
    from ..experiments.differences import notes
    from ..experiments.paper_numbers import read_printed
    from ..experiments.select_runs import refuse_damaged
    from ..experiments.sweep import Runner
    from ..report.html import write_table_one
    from ..training.build import resolve_device

    where = resolve_device(device)
    weights, known = read_alphas(alphas), read_printed(printed)
    names = _names(datasets) or table1.datasets_with_shards(work)
    cells = table1.plan(work, where, options, names, _names(features), seeds, weights)
    runner = Runner(work, where, jobs, workers, fresh)
    runner.run(config for cell in cells for seeded in cell.candidates for config in seeded)
    folder = work / "reports"
    table1.record(work, cells, known)
    rows, groups, missing, damaged = table1.read(work)
    for name in damaged.keys() - runner.damaged.keys():  # of other datasets
        warn(f"{name} is skipped: {damaged[name]}")
    if not rows:
        refuse_damaged(damaged)
    remarks = [*table1.notes(rows, missing), *notes(groups)]
    table1.write(rows, remarks, folder)
    write_table_one(folder / "table1.html", rows, groups, remarks)
    print_table(table1.wide(rows))
    for note in remarks:
        click.echo(note)
    click.echo(f"table: {folder / 'table1.md'} (also as .csv and .html)")
    refuse_damaged(damaged)


@click.command("ablate")
@click.option("--dataset", help="Dataset in the working folder.  [default: the only one]")
@click.option("--aligned", help="Aligned set of the dataset.  [default: the only one]")
@click.option(
    "--reg",
    type=Combined([name for name in REGULARIZERS if name != "none"]),
    default="conreg",
    help="Regularizer to compare with the baseline, or several, such as hint+disreg.",
)
@click.option(
    "--features", help="Features to use, such as vggish+openl3.  [default: all aligned ones]"
)
@click.option(
    "--fractions",
    default="10,30,50,70,90,100",
    help="Fractions of the training clips to use, in percent.",
)
@seeds_option
@alpha_option
@_ALPHAS
@jobs_option
@fresh_option
@shared_options
@workers_option
@work_option
def ablate_command(
    fractions: str,
    seeds: int,
    alphas: str | None,
    reg: str,
    features: str | None,
    jobs: int | None,
    fresh: bool,
    device: str,
    workers: int,
    work: Path,
    **options: Any,
) -> None:
    """Train on fractions of the training clips (Figure 2).

    The baseline and a regularized model are trained on each fraction. Finished runs are not
    repeated. With --alphas, the weight is chosen with all training clips and used for all
    fractions. The figure is written to WORK/reports as PNG, SVG, PDF and CSV.

    \b
    Example:
        train ablate --fractions 10,30,50,70,90,100 --seeds 3
    """
    from featreg.datasets.base import UsageError

    from ..config.options import configure
    from ..experiments import ablate
    from ..experiments.choose_alpha import read_alphas
    from ..experiments.differences import notes
    from ..experiments.select_runs import refuse_damaged
    from ..experiments.sweep import Runner
    from ..training.build import resolve_device

    where = resolve_device(device)
    shares, weights = ablate.read_fractions(fractions), read_alphas(alphas)
    if weights and options["alpha"] is not None:
        raise UsageError(f"--alpha and --alphas {alphas}: give only one of them")
    every = {**options, "fraction": 1.0, "fusion": "none"}
    config = configure(work, where, {**every, "reg": reg, "features": features})
    plain = {"reg": "none", "features": None, "alpha": None}
    baseline = configure(work, where, {**every, **plain})
    runner = Runner(work, where, jobs, workers, fresh)
    chosen = ""
    if weights:
        choice = _choose(config, weights, seeds, runner)
        config, chosen = choice.chosen.config, choice.sentence()
    plans = [each for method in (baseline, config) for each in ablate.plan(method, shares, seeds)]
    runner.run(each for seeded in plans for each in seeded)
    groups = runner.groups(plans)
    if len({each.config.method for each in groups}) < 2:
        refuse_damaged(runner.damaged)
    points = ablate.points(groups, chosen)
    path = ablate.write(points, work / "reports")
    print_table(ablate.formatted(points))
    for note in (ablate.caption(points), *notes(groups)):
        click.echo(note)
    click.echo(f"figure: {path.with_suffix('.png')} (also as .svg, .pdf and .csv)")
    refuse_damaged(runner.damaged)


@click.command("choose-alpha")
@click.option("--alphas", default="0.03,0.1,0.3,1,3", help="Weights of the regularizer to try.")
@seeds_option
@jobs_option
@fresh_option
@config_options
@workers_option
@work_option
def choose_alpha_command(
    alphas: str,
    seeds: int,
    jobs: int | None,
    fresh: bool,
    device: str,
    workers: int,
    work: Path,
    **options: Any,
) -> None:
    """Choose a regularizer's weight on the validation split.

    \b
    Example:
        train choose-alpha --reg conreg --alphas 0.1,0.3,1 --seeds 2
    """
    from featreg.datasets.base import UsageError

    from ..config.options import configure
    from ..experiments.choose_alpha import read_alphas
    from ..experiments.select_runs import refuse_damaged
    from ..experiments.sweep import Runner
    from ..training.build import resolve_device

    if options["reg"] == "none":
        raise UsageError("--reg none: no weight to choose; select a regularizer, such as conreg")
    weights, where = read_alphas(alphas), resolve_device(device)
    config = configure(work, where, options)
    runner = Runner(work, where, jobs, workers, fresh)
    choice = _choose(config, weights, seeds, runner)
    print_table(choice.table())
    refuse_damaged(runner.damaged)


def _choose(config: Config, alphas: Sequence[float], seeds: int, runner: Runner) -> Choice:
    """Train with each alpha; print and write the choice."""
    from ..experiments.choose_alpha import choose_alpha

    choice = choose_alpha(config, alphas, seeds, runner)
    click.echo(choice.sentence())
    click.echo(f"table: {choice.write(runner.work)}")
    return choice


@click.command("run-config", hidden=True)
@click.argument("asked")
@work_option
def run_config(asked: str, work: Path) -> None:
    """Train one run of a sweep, described by ASKED in JSON (for internal use)."""
    import json

    from ..config.config import Config
    from ..training.run import run

    values = json.loads(asked)
    config = Config.from_json(values.pop("config"))
    run(config, work, **values)


@click.command()
@click.option(
    "--classes",
    type=click.IntRange(1, 100_000),
    default=17,
    help="Number of classes; the paper's Table II has 17.",
)
@click.option(
    "--encoder",
    type=click.Choice(list(ENCODERS)),
    default="harmonic_cnn",
    help="Network that computes the embedding.",
)
@click.option("--save", is_flag=True, help="Also write WORK/reports/table2.csv, for the report.")
@work_option
def params(classes: int, encoder: str, save: bool, work: Path) -> None:
    """Count the parameters of every method (Table II).

    They are counted in training and at inference, with the paper's features.

    \b
    Example:
        train params --classes 50
    """
    from ..experiments.params import formatted, table_two, write

    rows = table_two(classes, encoder)
    print_table(formatted(rows))
    if save:
        click.echo(f"table: {write(rows, work / 'reports')}")


def _names(text: str | None) -> list[str]:
    """Return the names in a comma-separated list, without duplicates."""
    names = [name.strip() for name in (text or "").split(",")]
    return list(dict.fromkeys(filter(None, names)))
