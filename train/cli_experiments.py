"""``train compare``, ``params``, ``choose-alpha``: several runs, and what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.console import work_option

from .configure import config_options
from .models.registry import ENCODERS

if TYPE_CHECKING:
    import pandas as pd

_WORKERS = click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that read.  [default: none if the data fit into memory, else one a core]",
)


def attach(group: click.Group) -> None:
    """Add these commands to a group."""
    for command in (compare, params, choose_alpha_command):
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

    Runs that differ in their seeds alone are one row: mean and spread.

    \b
    Example:
        train compare demo-baseline-s0 demo-conreg-musicnn-a0.3-s0
    """
    from .compare import alphas, differences, load, notes, table
    from .report import write_report

    groups = load(work, runs, dataset)
    _print(table(groups))
    for sentence in differences(groups) + alphas(groups) + notes(groups):
        click.echo(sentence)
    path = report or work / "reports" / f"{groups[0].config.dataset}.html"
    write_report(path, groups)
    click.echo(f"report: {path}")


@click.command()
@click.option("--classes", type=click.IntRange(1), default=17, help="Of the task; 17 in the paper.")
@click.option("--encoder", type=click.Choice(list(ENCODERS)), default="harmonic_cnn")
def params(classes: int, encoder: str) -> None:
    """Count parameters, in training and in use, by method and features (Table II).

    \b
    Example:
        train params --classes 50
    """
    import pandas as pd

    from .params import table_two

    rows = table_two(classes, encoder)
    _print(
        pd.DataFrame(
            {
                "method": [row.method for row in rows],
                "features": [row.features for row in rows],
                "training": [f"{row.training:,}" for row in rows],
                "in use": [f"{row.inference:,}" for row in rows],
            }
        )
    )


@click.command("choose-alpha")
@click.option("--alphas", default="0.03,0.1,0.3,1,3", help="Weights to try.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Runs of each weight.")
@config_options
@_WORKERS
@work_option
def choose_alpha_command(
    alphas: str, seeds: int, device: str, workers: int | None, work: Path, **options: Any
) -> None:
    """Try several weights of a regularizer, and choose on the validation split.

    \b
    Example:
        train choose-alpha --reg conreg --alphas 0.1,0.3,1 --seeds 2
    """
    from featreg.datasets.base import UsageError

    from .build import resolve_device
    from .choose_alpha import choose_alpha
    from .configure import configure

    if options["reg"] == "none":
        raise UsageError("--reg none: no weight to choose; name a regularizer, --reg conreg")
    try:
        weights = [float(weight) for weight in alphas.split(",")]
    except ValueError:
        raise UsageError(f"--alphas {alphas}: expected numbers, such as 0.1,0.3,1") from None
    where = resolve_device(device)
    config = configure(work, where, options)
    chosen, found = choose_alpha(config, weights, seeds, work, where, workers)
    _print(found)
    path = work / "reports" / f"alpha-{config.dataset}-{config.reg}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(path, index=False)
    click.echo(f"alpha {chosen:g} has the best validation {config.metric}; table: {path}")


def _print(found: pd.DataFrame) -> None:
    """A table on standard output, as wide as it needs to be where that is no terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=500)
    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(found.columns):
        shown.add_column(str(name), justify="left" if number == 0 else "right")
    for row in found.itertuples(index=False):
        shown.add_row(*map(str, row))
    console.print(shown)
