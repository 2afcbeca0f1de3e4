"""Number of parameters in training and at inference, by method and features (Table II).

The parameters of the built modules are counted. In closed form, with E = 3,552,397 parameters
of the encoder (13 of them in its front end), B_E = 256, and
D(d) = (256 d + 256) + 512 + 257 C parameters of the decoder for C classes::

    method        training                         inference
    baseline      E + D(256)                       as in training
    feature-only  D(B_F)                           as in training, plus extractors
    Concat        E + D(256 + B_F)                 as in training, plus extractors
    FiLM          E + D(256) + 2 (256 B_F + 256)   as in training, plus extractors
    Con-Reg       E + D(256) + (256 B_F + 256)     E + D(256)
    Dis-Reg       E + D(256)                       E + D(256)

Extractors are not trained; at inference they count for the methods that need features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch import nn

from featreg.datasets.shards.hdf5 import atomic_path

from ..models.registry import build_encoder, build_tagger
from ..regularizers.registry import build_regularizer
from ..report.print_table import UNKNOWN

EXTRACTORS: Mapping[str, tuple[int, int]] = {
    "vggish": (128, 72_141_184),
    "openl3": (512, 4_687_042),  # without 2,818 constants that Keras counts
}
"""Feature -> its dimensions, and the number of parameters of its extractor."""

METHODS: Mapping[str, tuple[str, str]] = {
    "feature-only": ("features", "none"),
    "Concat": ("concat", "none"),
    "FiLM": ("film", "none"),
    "Con-Reg": ("none", "conreg"),
    "Dis-Reg": ("none", "disreg"),
}
"""Name of a method in the paper -> fusion and regularizer."""

PAPER = ("harmonic_cnn", 17)
"""Encoder and number of classes of the paper's Table II (DCASE 2017)."""

_FILE = "table2.csv"


def table_two(classes: int = 17, encoder: str = "harmonic_cnn") -> pd.DataFrame:
    """Count the parameters of the baseline and of every method with VGGish, OpenL3 and both.

    Parameters
    ----------
    classes
        Number of classes; 17 in the paper (DCASE 2017).
    encoder
        A name in `registry.ENCODERS`; ``harmonic_cnn`` in the paper.

    Returns
    -------
    One row per method and feature set: ``method`` (its name in the paper), ``features`` (joined
    by ``+``; empty for the baseline), ``training`` (number of trained parameters), ``inference``
    (number of parameters needed to classify an audio file, including extractors), ``encoder`` (at
    full width) and ``classes``.

    Raises
    ------
    UsageError
        If there is no such encoder.
    """
    rows: list[tuple[str, tuple[str, ...], str, str]] = [("baseline", (), "none", "none")]
    rows += [
        (method, features, fusion, regularizer)
        for method, (fusion, regularizer) in METHODS.items()
        for features in (("vggish",), ("openl3",), ("vggish", "openl3"))
    ]
    table: pd.DataFrame = pd.DataFrame([_row(*row, encoder, classes) for row in rows])
    return table


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table for display."""
    shown: pd.DataFrame = table[["method", "features", "training", "inference"]].copy()
    shown["features"] = shown["features"].replace("", UNKNOWN)
    for column in ("training", "inference"):
        shown[column] = shown[column].map("{:,}".format)
    return shown


def caption(table: pd.DataFrame) -> str:
    """Return a description of the table, the counted model, and how it differs from the paper's."""
    encoder, classes = table.loc[0, ["encoder", "classes"]]
    network = f"{encoder} at full width, {classes} classes"
    paper = (
        "as in Table II of the paper"
        if (encoder, classes) == PAPER
        else f"Table II of the paper is for {PAPER[0]} and {PAPER[1]} classes"
    )
    return (
        "Number of trained parameters, and of parameters needed to classify an audio file, "
        f"including extractors: {network}, with the paper's features; {paper}."
    )


def command(table: pd.DataFrame) -> str:
    """Return the command that creates this table."""
    encoder, classes = table.loc[0, ["encoder", "classes"]]
    return f"train params --classes {classes} --encoder {encoder} --save"


def write(table: pd.DataFrame, folder: Path) -> Path:
    """Write ``table2.csv`` to a folder, for `read` and the report; return its path."""
    with atomic_path(folder / _FILE) as temporary:
        table.to_csv(temporary, index=False)
    return folder / _FILE


def read(folder: Path) -> pd.DataFrame | None:
    """Read the table that `write` wrote; return None if there is none."""
    path = folder / _FILE
    return pd.read_csv(path, keep_default_na=False) if path.is_file() else None


def _row(
    method: str,
    features: tuple[str, ...],
    fusion: str,
    regularizer: str,
    encoder: str,
    classes: int,
) -> dict[str, object]:
    feature_dim = sum(EXTRACTORS[feature][0] for feature in features)
    net = build_encoder(encoder)
    tagger = build_tagger(fusion, net, feature_dim, classes)
    loss = build_regularizer(regularizer, feature_dim, net.dim)
    extractors = sum(EXTRACTORS[feature][1] for feature in features)
    return {
        "method": method,
        "features": "+".join(features),
        "training": count(tagger) + (0 if loss is None else count(loss)),
        "inference": count(tagger) + (extractors if tagger.needs_features else 0),
        "encoder": encoder,
        "classes": classes,
    }


def count(module: nn.Module) -> int:
    """Return the number of trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
