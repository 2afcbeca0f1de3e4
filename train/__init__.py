"""Aligned shards in, models out: ``train``. `load` takes a model home."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .deploy.classifier import Classifier as Classifier
    from .deploy.classifier import load as load


def __getattr__(name: str) -> Any:
    """`load` and `Classifier`, imported when they are asked for: they bring torch."""
    if name in ("load", "Classifier"):
        from .deploy import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
