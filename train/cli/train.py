"""The command ``train``: from aligned shards to evaluated classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.allocator import keep_memory
from featreg.datasets.console import Commands, Finite, group_options, say, work_option

from ..config.fold_options import fold_options
from ..config.options import (
    alpha_option,
    config_options,
    pretraining_options,
    workers_option,
)
from . import cross_validate as cli_cross_validate
from . import errors as cli_errors
from . import models as cli_models
from . import predict as cli_predict
from . import presets as cli_presets
from . import probe as cli_probe
from . import study as cli_study
from .experiments import attach

if TYPE_CHECKING:
    from ..training.run_dir import RunDir


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


def _run_options(command: Any) -> Any:
    """Add the options that do not change the results of a run to a command."""
    for option in (
        work_option,
        click.option("--tensorboard", is_flag=True, help="Also write TensorBoard logs."),
        click.option(
            "--save-every",
            type=Finite(0),
            default=60.0,
            metavar="SECONDS",
            help="Maximum interval between checkpoints, in seconds; each epoch also ends with one.",
        ),
        click.option(
            "--fresh", is_flag=True, help="Delete an existing run of this name and train again."
        ),
        click.option(
            "--run-name",
            help="Name of the run folder in WORK/runs.  [default: derived from the options]",
        ),
        workers_option,
    ):
        command = option(command)
    return command


@train.command("run")
@alpha_option
@config_options
@fold_options
@_run_options
def run_command(work: Path, **options: Any) -> None:
    """Train one model and test its best epoch.

    Run the same command again to resume an interrupted run; the results are the same as
    without the interruption. A finished run is not repeated.

    \b
    Example:
        train run --reg conreg --features vggish+openl3 --seed 1
    """
    folder = _run(work, **options)
    test = folder.read_json("report.json")["test"]
    say("test: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
    for note in folder.read_json("config.json")["data"]["notes"]:
        say(note)


@train.command("pretrain")
@alpha_option
@pretraining_options
@_run_options
def pretrain_command(work: Path, **options: Any) -> None:
    """Train an encoder with a regularizer alone, without labels.

    All training clips are used, with or without labels. The epoch with the lowest value of the
    regularizer on the validation split is kept. `train run --init RUN` then trains a classifier
    that starts from this encoder.

    \b
    Example:
        train pretrain --reg hint --features musicnn --run-name teacher
        train run --init teacher --label-fraction 0.1
    """
    folder = _run(work, pretrain=True, fusion="none", **options)
    value = folder.read_json("report.json")["valid"]["reg_loss"]
    say(f"valid: regularizer {value:.3f}; continue with `train run --init {folder.name}`")


def _run(
    work: Path,
    device: str,
    workers: int,
    run_name: str | None,
    fresh: bool,
    save_every: float,
    tensorboard: bool,
    **options: Any,
) -> RunDir:
    from ..config.fit_preset import started_preset
    from ..config.options import configure
    from ..training.build import resolve_device
    from ..training.run import run
    from ..training.versions import command_line

    where = resolve_device(device)
    if not fresh:
        options["preset"] = started_preset(work, where, options, run_name)
    config = configure(work, where, options)
    return run(
        config, work, run_name, fresh, where, workers, save_every, tensorboard, command_line()
    )


cli_probe.attach(train)
cli_study.attach(train)
cli_presets.attach(train)
cli_cross_validate.attach(train)
attach(train)
train.add_command(cli_predict.predict_command)
cli_models.attach(train)
cli_errors.attach(train)
