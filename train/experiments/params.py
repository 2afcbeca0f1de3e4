"""Parameters in training and in use, by method and features: Table II of the paper.

The counts are those of the modules themselves. By hand, with the encoder's E = 3,552,397
(13 of them in its front end), B_E = 256 and, for C classes, the decoder's
D(d) = (256 d + 256) + 512 + 257 C::

    method        training                         in use
    baseline      E + D(256)                       the same
    feature-only  D(B_F)                           the same, and the extractors
    Concat        E + D(256 + B_F)                 the same, and the extractors
    FiLM          E + D(256) + 2 (256 B_F + 256)   the same, and the extractors
    Con-Reg       E + D(256) + (256 B_F + 256)     E + D(256)
    Dis-Reg       E + D(256)                       E + D(256)

Extractors are never trained, and at work wherever features are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import nn

from featreg.datasets.shards.hdf5 import atomic_path

from ..models.registry import build_encoder, build_tagger
from ..regularizers.registry import build_regularizer

EXTRACTORS: Mapping[str, tuple[int, int]] = {
    "vggish": (128, 72_141_184),
    "openl3": (512, 4_687_042),  # without 2,818 constants that Keras counts
}
"""Feature -> values a row, and parameters of its extractor."""

METHODS: Mapping[str, tuple[str, str]] = {
    "feature-only": ("features", "none"),
    "Concat": ("concat", "none"),
    "FiLM": ("film", "none"),
    "Con-Reg": ("none", "conreg"),
    "Dis-Reg": ("none", "disreg"),
}
"""Name in the paper -> fusion and regularizer."""


PAPER = ("harmonic_cnn", 17)
"""Encoder and number of classes of the paper's Table II (DCASE 2017)."""

_FILE = "table2.csv"


class Row(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    method
        As the paper calls it.
    features
        Names joined by ``+``; empty for the baseline.
    training
        Parameters that are trained.
    inference
        Parameters needed to tag an audio file, extractors included.
    encoder, classes
        Of the counted network, at its full width; empty and 0 in tables that do not say.
    """

    method: str
    features: str
    training: int
    inference: int
    encoder: str = ""
    classes: int = 0


def table_two(classes: int = 17, encoder: str = "harmonic_cnn") -> list[Row]:
    """The baseline, and every method with VGGish, OpenL3, and both.

    Parameters
    ----------
    classes
        17 in the paper (DCASE 2017).
    encoder
        A name in `registry.ENCODERS`; the paper's is ``harmonic_cnn``.

    Raises
    ------
    UsageError
        If there is no such encoder.
    """
    return [
        _row("baseline", (), "none", "none", encoder, classes),
        *(
            _row(method, features, fusion, regularizer, encoder, classes)
            for method, (fusion, regularizer) in METHODS.items()
            for features in (("vggish",), ("openl3",), ("vggish", "openl3"))
        ),
    ]


def in_words(rows: Sequence[Row]) -> pd.DataFrame:
    """The table for readers."""
    found: pd.DataFrame = pd.DataFrame(
        {
            "method": [row.method for row in rows],
            "features": [row.features or "–" for row in rows],
            "training": [f"{row.training:,}" for row in rows],
            "in use": [f"{row.inference:,}" for row in rows],
        }
    )
    return found


def caption(rows: Sequence[Row]) -> str:
    """What the table shows, of which network, and how far that is the paper's."""
    encoder, classes = made = rows[0].encoder, rows[0].classes
    network = f"{encoder} at full width, {classes} classes" if encoder else "network not stored"
    paper = (
        "as in Table II of the paper"
        if made == PAPER
        else f"Table II of the paper has {PAPER[0]} and {PAPER[1]} classes"
    )
    return (
        "Parameters that are trained, and those needed to tag an audio file, extractors included: "
        f"{network}, with the paper's features; {paper}."
    )


def command(rows: Sequence[Row]) -> str:
    """What to type for this table, as far as it says what it holds."""
    encoder, classes = rows[0].encoder, rows[0].classes
    options = f" --classes {classes} --encoder {encoder}" if encoder else ""
    return f"train params{options} --save"


def write(rows: Sequence[Row], folder: Path) -> Path:
    """``table2.csv``, where `read` and the report find it."""
    with atomic_path(folder / _FILE) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return folder / _FILE


def read(folder: Path) -> list[Row]:
    """The table as `write` left it; nothing if there is none."""
    path = folder / _FILE
    if not path.is_file():
        return []
    found = pd.read_csv(path, keep_default_na=False)
    return [Row(*values) for values in found.itertuples(index=False)]


def _row(
    method: str,
    features: tuple[str, ...],
    fusion: str,
    regularizer: str,
    encoder: str,
    classes: int,
) -> Row:
    feature_dim = sum(EXTRACTORS[feature][0] for feature in features)
    net = build_encoder(encoder)
    tagger = build_tagger(fusion, net, feature_dim, classes)
    loss = build_regularizer(regularizer, feature_dim, net.dim)
    extractors = sum(EXTRACTORS[feature][1] for feature in features)
    return Row(
        method=method,
        features="+".join(features),
        training=count(tagger) + (0 if loss is None else count(loss)),
        inference=count(tagger) + (extractors if tagger.needs_features else 0),
        encoder=encoder,
        classes=classes,
    )


def count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
