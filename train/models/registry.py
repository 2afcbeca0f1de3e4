"""Names of encoders and fusion methods; torch is imported when one is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from featreg.datasets.base import UsageError

if TYPE_CHECKING:
    from .base import Encoder, Tagger

ENCODERS: Mapping[str, str] = {
    "harmonic_cnn": "HarmonicCNN",
    "mel_cnn": "MelCNN",
    "mobile_cnn": "MobileCNN",
}
"""Name of an encoder, which is also its module in this folder -> its class."""

FUSIONS = ("none", "features", "concat", "film")
"""Names of the fusion methods, as on the command line."""


def build_encoder(name: str, **options: Any) -> Encoder:
    """Build the encoder `name` with the keyword arguments of its class.

    Raises
    ------
    UsageError
        If there is no such encoder.
    """
    return _encoder(name)(**options)


def default_width(name: str) -> int:
    """Return the default of the argument `width` of the encoder `name`."""
    width: int = inspect.signature(_encoder(name)).parameters["width"].default
    return width


def _encoder(name: str) -> type[Encoder]:
    if name not in ENCODERS:
        raise UsageError(f"encoder {name!r} not found; choose from {', '.join(ENCODERS)}")
    encoder: type[Encoder] = getattr(import_module(f".{name}", __package__), ENCODERS[name])
    return encoder


def build_tagger(fusion: str, encoder: Encoder, feature_dim: int, classes: int) -> Tagger:
    """Build the classifier that uses features as input by the method `fusion`.

    Parameters
    ----------
    fusion
        One of `FUSIONS`; ``none`` for encoder and decoder without features.
    encoder
        Encoder that computes the embedding; ``features`` uses only its number of frames.
    feature_dim
        B_F, dimensions of the features; ignored for ``none``.
    classes
        Number of classes.

    Raises
    ------
    UsageError
        If there is no such fusion.
    """
    if fusion == "none":
        from .plain import Plain

        return Plain(encoder, classes)
    if fusion == "features":
        from .feature_only import FeatureOnly

        return FeatureOnly(encoder.frames, feature_dim, classes)
    if fusion == "concat":
        from .concat import Concat

        return Concat(encoder, feature_dim, classes)
    if fusion == "film":
        from .film import FiLM

        return FiLM(encoder, feature_dim, classes)
    raise UsageError(f"fusion {fusion!r} not found; choose from {', '.join(FUSIONS)}")
