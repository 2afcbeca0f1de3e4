"""Commands over several runs: ``compare``, ``table1``, ``ablate``, ``choose-alpha``, ``params``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.console import warn, work_option

from ..config.options import alpha_option, config_options, shared_options, workers_option
from ..models.registry import ENCODERS
from ..regularizers.registry import REGULARIZERS
from ..report.print_table import print_table

if TYPE_CHECKING:
    from ..config.presets import Config
    from ..experiments.choose_alpha import Choice
    from ..experiments.sweep import Runner

_SEEDS = click.option("--seeds", type=click.IntRange(1), default=1, help="Runs of each method.")
_ALPHAS = click.option(
    "--alphas",
    help="Weights to try, such as 0.1,0.3,1: the best on the validation split is taken.  "
    "[default: the preset's alone, else the paper's]",
)
_JOBS = click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Runs side by side, each a process with its share of GPUs and cores.  "
    "[default: one a GPU; one for every 4 cores]",
)
_FRESH = click.option("--fresh", is_flag=True, help="Repeat the runs that are there.")


def attach(group: click.Group) -> None:
    """Add these commands to a group."""
    several = (compare, table1_command, ablate_command, choose_alpha_command, params)
    for command in (*several, run_config):
        group.add_command(command)


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--dataset", help="Whose runs.  [default: the only one with runs]")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="HTML file to write.  [default: WORK/reports/DATASET.html]",
)
@work_option
def compare(runs: tuple[str, ...], dataset: str | None, report: Path | None, work: Path) -> None:
    """Put finished RUNS side by side, in a table and an HTML report.

    Runs that differ in their seeds alone are one row: mean and spread. Without RUNS, the
    report holds what `table1`, `ablate` and `params --save` made, too. Runs with damaged
    files are named and left out; the exit status is 1 then.

    \b
    Example:
        train compare demo-baseline-s0 demo-conreg-musicnn-a0.3-s0
    """
    from ..experiments.compare import alphas, differences, load, notes, table
    from ..experiments.select_runs import refuse_damaged
    from ..report.html import write_report

    groups, damaged = load(work, runs, dataset)
    print_table(table(groups))
    for sentence in differences(groups) + alphas(groups) + notes(groups):
        click.echo(sentence)
    path = report or work / "reports" / f"{groups[0].config.dataset}.html"
    write_report(path, groups, None if runs else work / "reports")
    click.echo(f"report: {path}")
    refuse_damaged(damaged)


@click.command("table1")
@click.option("--dataset", "datasets", help="Such as mtat,dcase2017.  [default: all aligned]")
@click.option("--aligned", help="Aligned set of each dataset.  [default: the only one]")
@click.option(
    "--features",
    help="Feature sets, such as vggish,openl3,vggish+openl3.  [default: each, and all together]",
)
@_SEEDS
@_ALPHAS
@click.option(
    "--printed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of the paper's numbers: dataset, method, features, value.  [default: those known]",
)
@_JOBS
@_FRESH
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
    """Train every method with every feature set on every dataset (Table I).

    Runs that are there are used; an interrupted table goes on. Written as CSV, Markdown
    and HTML to WORK/reports, with the rows of other datasets whose runs are there.

    \b
    Example:
        train table1 --dataset mtat --seeds 3 --alphas 0.3,1,5
    """
    from ..experiments import table1
    from ..experiments.choose_alpha import read_alphas
    from ..experiments.compare import notes
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
        warn(f"{name} is left out: {damaged[name]}")
    if not rows:
        refuse_damaged(damaged)
    said = [*table1.notes(rows, missing), *notes(groups)]
    table1.write(rows, said, folder)
    write_table_one(folder / "table1.html", rows, groups, said)
    print_table(table1.wide(rows))
    for note in said:
        click.echo(note)
    click.echo(f"table: {folder / 'table1.md'}, and .csv and .html beside it")
    refuse_damaged(damaged)


@click.command("ablate")
@click.option("--dataset", help="Dataset in the working folder.  [default: the only one]")
@click.option("--aligned", help="Aligned set of the dataset.  [default: the only one]")
@click.option(
    "--reg",
    type=click.Choice([name for name in REGULARIZERS if name != "none"]),
    default="conreg",
    help="Shown beside the baseline.",
)
@click.option("--features", help="Features, such as vggish+openl3.  [default: all aligned]")
@click.option(
    "--fractions", default="10,30,50,70,90,100", help="Shares of the training clips, in percent."
)
@_SEEDS
@alpha_option
@_ALPHAS
@_JOBS
@_FRESH
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
    """Train the baseline and a regularized model on ever more clips (Figure 2).

    Runs that are there are used. With --alphas, the weight is chosen on all training
    clips and kept. Written as PNG, SVG and CSV to WORK/reports.

    \b
    Example:
        train ablate --fractions 10,30,50,70,90,100 --seeds 3
    """
    from featreg.datasets.base import UsageError

    from ..config.options import configure
    from ..experiments import ablate
    from ..experiments.choose_alpha import read_alphas
    from ..experiments.compare import notes
    from ..experiments.select_runs import refuse_damaged
    from ..experiments.sweep import Runner
    from ..training.build import resolve_device

    where = resolve_device(device)
    shares, weights = ablate.read_fractions(fractions), read_alphas(alphas)
    if weights and options["alpha"] is not None:
        raise UsageError(f"--alpha {options['alpha']:g} --alphas {alphas}: give one of the two")
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
    print_table(ablate.in_words(points))
    for note in (ablate.caption(points), *notes(groups)):
        click.echo(note)
    click.echo(f"figure: {path.with_suffix('.png')}, and .svg and .csv beside it")
    refuse_damaged(runner.damaged)


@click.command("choose-alpha")
@click.option("--alphas", default="0.03,0.1,0.3,1,3", help="Weights to try.")
@_SEEDS
@_JOBS
@_FRESH
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
    """Try several weights of a regularizer, and choose on the validation split.

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
        raise UsageError("--reg none: no weight to choose; name a regularizer, --reg conreg")
    weights, where = read_alphas(alphas), resolve_device(device)
    config = configure(work, where, options)
    runner = Runner(work, where, jobs, workers, fresh)
    choice = _choose(config, weights, seeds, runner)
    print_table(choice.table())
    refuse_damaged(runner.damaged)


def _choose(config: Config, alphas: Sequence[float], seeds: int, runner: Runner) -> Choice:
    """Try every alpha; say and write down what validation chose."""
    from ..experiments.choose_alpha import choose_alpha

    choice = choose_alpha(config, alphas, seeds, runner)
    click.echo(choice.sentence())
    click.echo(f"table: {choice.write(runner.work)}")
    return choice


@click.command("run-config", hidden=True)
@click.argument("asked")
@work_option
def run_config(asked: str, work: Path) -> None:
    """Train one run of a sweep, described by ASKED in JSON; sweeps start it."""
    import json

    from ..config.presets import Config
    from ..training.run import run

    values = json.loads(asked)
    config = Config.from_json(values.pop("config"))
    run(config, work, **values)


@click.command()
@click.option(
    "--classes",
    type=click.IntRange(1, 100_000),
    default=17,
    help="Of the task; 17 in the paper.",
)
@click.option("--encoder", type=click.Choice(list(ENCODERS)), default="harmonic_cnn")
@click.option("--save", is_flag=True, help="Write WORK/reports/table2.csv, for the report.")
@work_option
def params(classes: int, encoder: str, save: bool, work: Path) -> None:
    """Count parameters, in training and in use, by method and features (Table II).

    \b
    Example:
        train params --classes 50
    """
    from ..experiments.params import in_words, table_two, write

    rows = table_two(classes, encoder)
    print_table(in_words(rows))
    if save:
        click.echo(f"table: {write(rows, work / 'reports')}")


def _names(text: str | None) -> list[str]:
    """Names between commas, each once."""
    names = [name.strip() for name in (text or "").split(",")]
    return list(dict.fromkeys(filter(None, names)))
