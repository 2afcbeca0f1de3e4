"""Options of the training commands, and the configuration that they determine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from featreg.datasets.console import Finite

from ..models.registry import ENCODERS, FUSIONS, default_width
from ..regularizers.registry import REGULARIZERS, default_norm
from .augment_options import AUGMENTATION, LABELS
from .choose_data import choose_metric, choose_shards
from .config import Config
from .fit_preset import choose_preset
from .fold_options import choose_fold
from .method import (
    alpha_schedule_of,
    alphas_of,
    features_of,
    init_of,
    require_scores,
    unlabelled_batch_of,
)
from .option_types import Combined, Weights
from .presets import NORMS, PRESETS, Recipe
from .schedule import ALPHA_SCHEDULES, SCHEDULES

READERS = 4
"""Default number of threads that read batches in advance."""

_PRESET = "the preset's"
_ALPHA = click.option(
    "--alpha",
    type=Weights(),
    show_default="the preset's, else the paper's",
    help="Weight of the regularizer in the training loss, or of each of a combination, such as "
    "5+1; `train choose-alpha` compares several.",
)
_WORKERS = click.option(
    "--workers",
    type=click.IntRange(0),
    default=READERS,
    help="Threads that read batches in advance; 0 disables them.",
)
_WHERE = (
    click.option("--dataset", help="Dataset in the working folder.  [default: the only one]"),
    click.option(
        "--aligned",
        help="Aligned set of the dataset, such as musicnn-0.1s.  [default: the only one]",
    ),
)
_FEATURES = click.option(
    "--features", help="Features to use, such as vggish+openl3.  [default: all aligned ones]"
)
_FRACTION = click.option(
    "--fraction",
    type=float,
    default=1.0,
    help="Fraction of the training clips to use, in (0, 1].",
)
_DATA = (
    _FEATURES,
    _FRACTION,
    click.option(
        "--label-fraction",
        type=float,
        default=1.0,
        help="Fraction of the labelled training clips whose labels are used, in (0, 1]; the "
        "other clips count as unlabelled.",
    ),
)
_METHOD = (
    click.option(
        "--reg",
        type=Combined(REGULARIZERS),
        default="none",
        help="Regularizer of the embedding, or several, such as hint+disreg.",
    ),
    click.option(
        "--fusion",
        type=click.Choice(list(FUSIONS)),
        default="none",
        help="How features are used as input.",
    ),
    *_DATA,
    click.option(
        "--unlabelled-batch",
        type=click.IntRange(0),
        default=0,
        metavar="CLIPS",
        help="Number of training clips without labels in each batch and device, in addition to "
        "--batch-size; they take part in the regularizer only. With 0, they are not used.",
    ),
    click.option(
        "--alpha-schedule",
        type=click.Choice(ALPHA_SCHEDULES),
        default="constant",
        help="Course of alpha over all steps: constant, increasing linearly from 0 in the first "
        "tenth (warmup), or decreasing to 0 along half a cosine (decay).",
    ),
    click.option(
        "--init",
        metavar="RUN",
        help="Finished run, such as one of `train pretrain`, whose encoder is the initial one.",
    ),
)
_PRETRAINING = (
    click.option(
        "--reg",
        type=Combined([name for name in REGULARIZERS if name != "none"]),
        default="hint",
        help="Regularizer of the embedding, or several, such as hint+disreg; the only loss.",
    ),
    _FEATURES,
    _FRACTION,
)
_METRIC = click.option(
    "--metric",
    show_default="the dataset's",
    help="Validation metric that selects the best epoch.",
)
_RECIPE = (
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        help="Seed of weights, crops, order, dropout and augmentation.",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        show_default="the dataset's, else one that fits the data and the machine",
        help="Preset of model and training settings, which the options below override; "
        "`train presets` lists them.",
    ),
    click.option(
        "--encoder",
        type=click.Choice(list(ENCODERS)),
        show_default=_PRESET,
        help="Network that computes the embedding.",
    ),
    click.option(
        "--width",
        type=click.IntRange(1, 10_000),
        show_default="the preset's; with another --encoder, that encoder's",
        help="Number of channels of the encoder's first blocks.",
    ),
    click.option(
        "--crop",
        "crop_s",
        type=Finite(0, 3600, min_open=True),
        metavar="SECONDS",
        show_default=_PRESET,
        help="Length of a training crop, in seconds.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(2),
        show_default=_PRESET,
        help="Number of clips per batch and device.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(list(SCHEDULES)),
        show_default=_PRESET,
        help="Optimizers and learning rates: as Won et al. 2020, or AdamW with cosine decay.",
    ),
    click.option(
        "--epochs", type=click.IntRange(1), show_default=_PRESET, help="Total number of epochs."
    ),
    click.option(
        "--epoch-steps",
        type=click.IntRange(0),
        show_default=_PRESET,
        help="Minimum number of training steps of an epoch; a small training set is passed over "
        "several times.",
    ),
    click.option(
        "--lr",
        type=Finite(0, 1e6, min_open=True),
        show_default=_PRESET,
        help="Base learning rate; the stages of a schedule use multiples of it.",
    ),
    click.option(
        "--clip-norm",
        type=Finite(0),
        show_default=_PRESET,
        help="Maximum norm of the gradient; 0 disables clipping.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(0),
        show_default=_PRESET,
        help="Number of epochs without improvement after which training stops; 0 disables this.",
    ),
    click.option(
        "--chunks",
        type=click.IntRange(2, 10_000),
        show_default=_PRESET,
        help="Number of chunks per clip whose predictions are averaged in evaluation.",
    ),
    click.option(
        "--feature-norm",
        type=click.Choice(NORMS),
        show_default="standardize for hint, else the preset's",
        help="Normalization of the features over the training clips: to mean 0 (center), and also "
        "to standard deviation 1 (standardize).",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bf16-mixed"]),
        show_default=_PRESET,
        help="Precision of training; auto uses bfloat16 if the hardware supports it.",
    ),
    *AUGMENTATION,
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Device on which the network runs.",
    ),
    click.option(
        "--devices",
        type=click.IntRange(1, 1024),
        default=1,
        help="Number of devices that train together.",
    ),
)


def config_options(command: Any) -> Any:
    """Add the options of `configure` to a command, except ``--alpha``."""
    return _give(command, (*_WHERE, *_METHOD, *_RECIPE, *LABELS, _METRIC))


def pretraining_options(command: Any) -> Any:
    """Add the options of `configure` for a pretraining to a command, except ``--alpha``."""
    return _give(command, _WHERE + _PRETRAINING + _RECIPE)


def data_options(command: Any) -> Any:
    """Add the options that select the dataset, the features and the training clips."""
    return _give(command, _WHERE + _DATA)


def shared_options(command: Any) -> Any:
    """Add the options that select neither data nor method to a command."""
    return _give(command, (*_RECIPE, *LABELS, _METRIC))


def _give(command: Any, options: Sequence[Any]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


def alpha_option(command: Any) -> Any:
    """Add ``--alpha`` to a command."""
    return _ALPHA(command)


def workers_option(command: Any) -> Any:
    """Add ``--workers`` to a command."""
    return _WORKERS(command)


def configure(work: Path, device: str, options: Mapping[str, Any]) -> Config:
    """Return the configuration for the values of `config_options`.

    Parameters
    ----------
    work
        The working folder.
    device
        ``cpu`` or ``cuda``; determines the precision for ``auto``.
    options
        Values by name; None selects the value of the preset or the data. With ``pretrain``, the
        configuration is that of a pretraining.

    Raises
    ------
    FeatregError
        If features were not extracted or aligned, or the run of ``--init`` is not finished.
    UsageError
        If a requested dataset, set, feature or run does not exist, or does not suit the method.
    """
    from ..training.build import resolve_precision

    folder, aligned, shards = choose_shards(work, options)
    preset = choose_preset(options["preset"], folder.name, len(shards.clips), device)
    names = [item.name for item in dataclasses.fields(Recipe)]
    changes = {name: options[name] for name in names if options.get(name) is not None}
    reg, fusion = options["reg"], options["fusion"]
    if (norm := default_norm(reg)) != "none":
        changes.setdefault("feature_norm", norm)
    recipe = dataclasses.replace(PRESETS[preset], **changes)
    if recipe.encoder != PRESETS[preset].encoder:  # width and options belong to that encoder
        width = changes.get("width", default_width(recipe.encoder))
        recipe = dataclasses.replace(recipe, encoder_options={}, width=width)
    precision = resolve_precision(recipe.precision, device)
    pretrain = bool(options.get("pretrain"))
    init, init_sha256 = init_of(work, fusion, options.get("init"))
    features = features_of(reg, fusion, options["features"], shards)
    require_scores(reg, recipe.feature_norm, features, shards.header.features)
    alphas = alphas_of(reg, preset, options.get("alpha"))
    return Config(
        dataset=folder.name,
        aligned=aligned,
        preset=preset,
        reg=reg,
        fusion=fusion,
        features=features,
        alpha=alphas[0] if alphas else 0.0,
        fraction=options["fraction"],
        seed=options["seed"],
        metric="reg_loss" if pretrain else choose_metric(folder, shards, options["metric"]),
        devices=options["devices"],
        recipe=dataclasses.replace(recipe, precision=precision),
        label_fraction=options.get("label_fraction", 1.0),
        unlabelled_batch=unlabelled_batch_of(reg, options.get("unlabelled_batch", 0)),
        more_alphas=alphas[1:],
        alpha_schedule=alpha_schedule_of(reg, options.get("alpha_schedule", "constant")),
        pretrain=pretrain,
        init=init,
        init_sha256=init_sha256,
        fold=choose_fold(options),
        group=options.get("group", ""),
    )
