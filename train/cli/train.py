"""The command ``train``: from aligned shards to evaluated classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featreg.datasets.allocator import keep_memory
from featreg.datasets.console import Commands, Finite, group_options, say, work_option

from ..config.fold_options import fold_options
from ..config.options import alpha_option, config_options, workers_option
from . import cross_validate as cli_cross_validate
from . import models as cli_models
from . import probe as cli_probe
from .experiments import attach


@click.group(cls=Commands, context_settings={"show_default": True})
@group_options
def train() -> None:
    """Train audio classifiers with the help of pre-trained features.

    \b
    Example:
        train run --reg conreg
        train compare
    """
    keep_memory()


@train.command("run")
@alpha_option
@config_options
@fold_options
@workers_option
@click.option(
    "--run-name", help="Name of the run folder in WORK/runs.  [default: derived from the options]"
)
@click.option("--fresh", is_flag=True, help="Delete an existing run of this name and train again.")
@click.option(
    "--save-every",
    type=Finite(0),
    default=60.0,
    metavar="SECONDS",
    help="Maximum interval between checkpoints, in seconds; each epoch also ends with one.",
)
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard logs.")
@work_option
def run_command(
    device: str,
    workers: int,
    run_name: str | None,
    fresh: bool,
    save_every: float,
    tensorboard: bool,
    work: Path,
    **options: Any,
) -> None:
    """Train one model and test its best epoch.

    Run the same command again to resume an interrupted run; the results are the same as
    without the interruption. A finished run is not repeated.

    \b
    Example:
        train run --reg conreg --features vggish+openl3 --seed 1
    """
    from ..config.options import configure
    from ..training.build import resolve_device
    from ..training.run import run
    from ..training.versions import command_line

    where = resolve_device(device)
    config = configure(work, where, options)
    folder = run(
        config, work, run_name, fresh, where, workers, save_every, tensorboard, command_line()
    )
    test = folder.read_json("report.json")["test"]
    say("test: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
    for note in folder.read_json("config.json")["data"]["notes"]:
        say(note)


cli_probe.attach(train)
cli_cross_validate.attach(train)
attach(train)
cli_models.attach(train)
