"""Aligned shards in, models out: ``train``."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, another name of ``featreg.load_model``, imported on first use: it brings torch."""
    if name == "load":
        from .deploy.classifier import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
