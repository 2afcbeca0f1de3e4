"""What the user asks for, and what the preset and the data make of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from featreg.datasets.base import UsageError
from featreg.datasets.console import Finite

from ..models.registry import ENCODERS, FUSIONS
from ..regularizers.registry import REGULARIZERS
from .presets import ALPHAS, PRESETS, Config, Recipe, preset_for
from .schedule import SCHEDULES

READERS = 4
"""Threads that read ahead, unless others are asked for: they sleep most of the time."""

_PRESET = "the preset's"
_ALPHA = click.option(
    "--alpha",
    type=Finite(0),
    show_default="the preset's, else the paper's",
    help="Weight of the regularizer; `train choose-alpha` tries several.",
)
_WORKERS = click.option(
    "--workers",
    type=click.IntRange(0),
    default=READERS,
    help="Threads that read ahead; 0: none.",
)
_WHERE = (
    click.option("--dataset", help="Dataset in the working folder.  [default: the only one]"),
    click.option("--aligned", help="Aligned set of the dataset.  [default: the only one]"),
)
_METHOD = (
    click.option("--reg", type=click.Choice(REGULARIZERS), default="none", help="Regularizer."),
    click.option(
        "--fusion", type=click.Choice(list(FUSIONS)), default="none", help="Features as input."
    ),
    click.option("--features", help="Features, such as vggish+openl3.  [default: all aligned]"),
    click.option("--fraction", type=float, default=1.0, help="Share of the training clips."),
)
_RECIPE = (
    click.option(
        "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of all that is random."
    ),
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        show_default="the dataset's name, else default",
        help="Recipe that the next options change.",
    ),
    click.option(
        "--encoder", type=click.Choice(list(ENCODERS)), show_default=_PRESET, help="Network."
    ),
    click.option(
        "--width", type=click.IntRange(1, 10_000), show_default=_PRESET, help="Of the encoder."
    ),
    click.option(
        "--crop",
        "crop_s",
        type=Finite(0, 3600, min_open=True),
        metavar="SECONDS",
        show_default=_PRESET,
        help="Length of a training example.",
    ),
    click.option(
        "--batch-size", type=click.IntRange(2), show_default=_PRESET, help="Clips a device."
    ),
    click.option(
        "--schedule",
        type=click.Choice(list(SCHEDULES)),
        show_default=_PRESET,
        help="Optimizers and rates: Won et al. 2020, or AdamW along a cosine.",
    ),
    click.option("--epochs", type=click.IntRange(1), show_default=_PRESET, help="In all."),
    click.option(
        "--lr",
        type=Finite(0, 1e6, min_open=True),
        show_default=_PRESET,
        help="Learning rate; a schedule's stages have multiples of it.",
    ),
    click.option(
        "--clip-norm",
        type=Finite(0),
        show_default=_PRESET,
        help="Largest norm of the gradient; 0: any.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(0),
        show_default=_PRESET,
        help="Stop after so many epochs without a better one; 0: never.",
    ),
    click.option(
        "--chunks",
        type=click.IntRange(2, 10_000),
        show_default=_PRESET,
        help="Pieces of a clip that an evaluation averages.",
    ),
    click.option(
        "--standardize/--no-standardize",
        default=None,
        show_default=_PRESET,
        help="Features to mean 0 and deviation 1, by the training clips.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bf16-mixed"]),
        show_default=_PRESET,
        help="auto: bfloat16 where the hardware has it.",
    ),
    click.option("--metric", show_default="the dataset's", help="Selects the best epoch."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Where the network runs.",
    ),
    click.option("--devices", type=click.IntRange(1, 1024), default=1, help="That train together."),
)


def config_options(command: Any) -> Any:
    """Give a command the options that `configure` takes, but for ``--alpha``."""
    return _give(command, _WHERE + _METHOD + _RECIPE)


def shared_options(command: Any) -> Any:
    """Give a command those that say neither which data nor which method."""
    return _give(command, _RECIPE)


def _give(command: Any, options: Sequence[Any]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


def alpha_option(command: Any) -> Any:
    """Give a command ``--alpha``."""
    return _ALPHA(command)


def workers_option(command: Any) -> Any:
    """Give a command ``--workers``."""
    return _WORKERS(command)


def configure(work: Path, device: str, options: Mapping[str, Any]) -> Config:
    """The configuration that the options of `config_options` ask for.

    Parameters
    ----------
    work
        The working folder.
    device
        ``cpu`` or ``cuda``, which decides what precision ``auto`` is.
    options
        Values by name; None leaves a choice to the preset or the data.

    Raises
    ------
    FeatregError
        If a step before training is missing.
    UsageError
        If something asked for is not there, or does not fit the method.
    """
    from featreg.datasets.collections.registry import metric
    from featreg.datasets.shards.workdir import choose, choose_dataset

    from ..data.aligned_set import AlignedSet
    from ..evaluation.metrics import METRICS
    from ..training.build import resolve_precision

    folder = choose_dataset(work, options["dataset"])
    aligned = choose(
        "aligned set",
        "--aligned",
        folder.aligned_names(),
        options["aligned"],
        f"{folder.path}: nothing is aligned here; run `prep align --resolution 0.1` first",
    )
    shards = AlignedSet(folder.aligned(aligned))
    preset = options["preset"] or preset_for(folder.name)
    names = [item.name for item in dataclasses.fields(Recipe)]
    changes = {name: options[name] for name in names if options.get(name) is not None}
    recipe = dataclasses.replace(PRESETS[preset], **changes)
    if recipe.encoder != PRESETS[preset].encoder:  # whose further options are not this one's
        recipe = dataclasses.replace(recipe, encoder_options={})
    precision = resolve_precision(recipe.precision, device)
    reg, fusion = options["reg"], options["fusion"]
    selecting = options["metric"] or metric(folder.name, shards.task)
    fitting = [name for name, each in METRICS.items() if shards.task in each.tasks]
    if selecting not in fitting:
        raise UsageError(
            f"--metric {selecting}: no metric of a {shards.task} task; choose from "
            f"{', '.join(fitting)}"
        )
    return Config(
        dataset=folder.name,
        aligned=aligned,
        preset=preset,
        reg=reg,
        fusion=fusion,
        features=_features(reg, fusion, options["features"], shards),
        alpha=_alpha(reg, preset, options.get("alpha")),
        fraction=options["fraction"],
        seed=options["seed"],
        metric=selecting,
        devices=options["devices"],
        recipe=dataclasses.replace(recipe, precision=precision),
    )


def _features(reg: str, fusion: str, wanted: str | None, shards: Any) -> tuple[str, ...]:
    if reg != "none" and fusion == "features":
        raise UsageError(
            f"--reg {reg} --fusion features: there is no embedding to regularize; leave one out"
        )
    if reg == "none" and fusion == "none":
        if wanted:
            raise UsageError(
                f"--features {wanted}: the baseline uses none; choose a method with --reg or "
                "--fusion"
            )
        return ()
    names = [name.strip() for name in (wanted or "").replace(",", "+").split("+")]
    features: tuple[str, ...] = shards.features([name for name in names if name])
    return features


def _alpha(reg: str, preset: str, wanted: float | None) -> float:
    if reg == "none":
        if wanted is not None:
            raise UsageError(f"--alpha {wanted:g}: weighs a regularizer; choose one with --reg")
        return 0.0
    if wanted is not None:
        return wanted
    from ..regularizers.registry import build_regularizer

    paper = build_regularizer(reg, feature_dim=1, embedding_dim=1)
    return ALPHAS.get(preset, {}).get(reg, paper.default_alpha if paper else 0.0)
