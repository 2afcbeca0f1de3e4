"""``train``: aligned shards in, classifiers and what they are worth out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featreg.datasets.console import Commands, Finite, group_options, say, work_option

from ..config.options import alpha_option, config_options, workers_option
from . import models as cli_models
from .experiments import attach


@click.group(cls=Commands, context_settings={"show_default": True})
@group_options
def train() -> None:
    """Train audio classifiers whose embeddings are shaped by pre-trained features.

    \b
    Example:
        train run --reg conreg
        train compare
    """


@train.command("run")
@alpha_option
@config_options
@workers_option
@click.option("--run-name", help="Folder in WORK/runs.  [default: made of the options]")
@click.option("--fresh", is_flag=True, help="Replace a run of this name.")
@click.option(
    "--save-every",
    type=Finite(0),
    default=60.0,
    metavar="SECONDS",
    help="Training that a kill may cost; each epoch's end is saved too.",
)
@click.option("--tensorboard", is_flag=True, help="Log for TensorBoard, beside metrics.csv.")
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
    """Train one model, and test its best epoch.

    A run that was interrupted, by whatever, goes on to the numbers that it would have
    had; one that is done is not repeated.

    \b
    Example:
        train run --reg conreg --features vggish+openl3 --seed 1
    """
    from ..config.options import configure
    from ..training.build import resolve_device
    from ..training.run import run

    where = resolve_device(device)
    config = configure(work, where, options)
    folder = run(config, work, run_name, fresh, where, workers, save_every, tensorboard)
    test = folder.read_json("report.json")["test"]
    say("test: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
    for note in folder.read_json("config.json")["data"]["notes"]:
        say(note)


attach(train)
cli_models.attach(train)
