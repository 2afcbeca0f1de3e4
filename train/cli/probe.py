"""``train probe``: a small classifier on the features alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featreg.datasets.console import say, work_option

from ..config.fold_options import fold_options
from ..config.probe_options import probe_options


def attach(group: click.Group) -> None:
    """Add the command to a group."""
    group.add_command(probe_command)


@click.command("probe")
@probe_options
@fold_options
@click.option(
    "--run-name", help="Name of the run folder in WORK/runs.  [default: derived from the options]"
)
@click.option("--fresh", is_flag=True, help="Delete an existing run of this name and fit again.")
@work_option
def probe_command(run_name: str | None, fresh: bool, work: Path, **options: Any) -> None:
    """Fit a logistic regression to the features, pooled over time.

    A probe takes seconds and shows how well the features alone separate the classes: a result
    to compare networks with that are trained with their help. The features are standardized on
    the training split, and the strength of the regularization is the best of a grid on the
    validation split. The run folder has the form of those of `train run`, and `train compare`
    shows both side by side.

    \b
    Example:
        train probe --features vggish --fraction 0.1
        train probe --mlp --pool mean+std
    """
    from ..config.probe_options import configure_probe
    from ..training.run_probe import run_probe
    from ..training.versions import command_line

    folder = run_probe(configure_probe(work, options), work, run_name, fresh, command_line())
    test = folder.read_json("report.json")["test"]
    say("test: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
    for note in folder.read_json("config.json")["data"]["notes"]:
        say(note)
