"""Options of ``train probe``, and the configuration that they determine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .choose_data import choose_features, choose_metric, choose_shards
from .config import PROBE_RECIPE, Config, Probe
from .fold_options import choose_fold
from .options import data_options
from .presets import preset_for

_POOLS = ("mean", "mean+std", "max")


def probe_options(command: Any) -> Any:
    """Add the options of `configure_probe` to a command."""
    options = (
        click.option("--mlp", is_flag=True, help="Fit a small multilayer perceptron instead."),
        pool_option,
        click.option(
            "--metric",
            show_default="the dataset's",
            help="Validation metric that selects the regularization.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            default=0,
            help="Seed of the choice of training clips, and of the multilayer perceptron.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return data_options(command)


def pool_option(command: Any) -> Any:
    """Add ``--pool`` to a command."""
    option = click.option(
        "--pool",
        type=click.Choice(_POOLS),
        default="mean",
        help="Pooling of the features over the time of a clip.",
    )
    return option(command)


def configure_probe(work: Path, options: Mapping[str, Any]) -> Config:
    """Return the configuration for the values of `probe_options`.

    Parameters
    ----------
    work
        The working folder.
    options
        Values by name; None selects the value of the data.

    Raises
    ------
    FeatregError
        If features were not extracted or aligned.
    UsageError
        If a requested dataset, set, feature or metric does not exist.
    """
    folder, aligned, shards = choose_shards(work, options)
    return Config(
        dataset=folder.name,
        aligned=aligned,
        preset=preset_for(folder.name),
        reg="none",
        fusion="features",
        features=choose_features(shards, options["features"]),
        alpha=0.0,
        fraction=options["fraction"],
        label_fraction=options["label_fraction"],
        seed=options["seed"],
        metric=choose_metric(folder, shards, options["metric"]),
        devices=1,
        recipe=PROBE_RECIPE,
        fold=choose_fold(options),
        group=options["group"],
        probe=Probe("mlp" if options["mlp"] else "logistic", options["pool"]),
    )
