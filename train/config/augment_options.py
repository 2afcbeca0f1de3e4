"""Options of augmentation, and of the targets and weights of the loss."""

from __future__ import annotations

import click

from featreg.datasets.console import Finite

_PRESET = "the preset's"

AUGMENTATION = (
    click.option(
        "--mixup",
        type=Finite(0, 100),
        metavar="ALPHA",
        show_default=_PRESET,
        help="Mix the audio, features and labels of random pairs of training crops, with shares "
        "from the distribution Beta(ALPHA, ALPHA), such as 0.2; 0 disables this.",
    ),
    click.option(
        "--mask",
        type=Finite(0, 1),
        metavar="FRACTION",
        show_default=_PRESET,
        help="Mask a random band of frequencies and a random interval of time of the spectrogram "
        "in training, each at most this fraction of the whole, such as 0.2; 0 disables this.",
    ),
    click.option(
        "--gain",
        type=Finite(0, 60),
        metavar="DB",
        show_default=_PRESET,
        help="Amplify or attenuate the audio of each training crop at random by at most this gain, "
        "in dB; 0 disables this.",
    ),
)
"""Options that change the input in training; they need no labels."""

LABELS = (
    click.option(
        "--label-smoothing",
        type=Finite(0, 1, max_open=True),
        metavar="SHARE",
        show_default=_PRESET,
        help="Share of the uniform distribution in the targets, such as 0.1; 0 disables this.",
    ),
    click.option(
        "--class-weights/--no-class-weights",
        default=None,
        show_default=_PRESET,
        help="Weight the loss such that all classes count equally, however rare they are.",
    ),
)
"""Options that change the targets and weights of the loss."""
