"""Values of the options that select a method, checked against each other and the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from featreg.datasets.base import UsageError

from .choose_data import choose_features
from .presets import ALPHAS

if TYPE_CHECKING:
    from ..data.aligned_set import AlignedSet


def init_of(work: Path, fusion: str, wanted: str | None) -> tuple[str, str]:
    """Return `Config.init` and `Config.init_sha256` for ``--init``."""
    if wanted is None:
        return "", ""
    from ..training.initial_weights import find_initial

    if fusion == "features":
        raise UsageError(
            f"--init {wanted} --fusion features: this model has no encoder; omit one of them"
        )
    return find_initial(work, wanted)


def unlabelled_batch_of(reg: str, wanted: int) -> int:
    """Return `Config.unlabelled_batch`, which needs a regularizer."""
    if wanted and reg == "none":
        raise UsageError(
            f"--unlabelled-batch {wanted}: clips without labels take part in a regularizer only; "
            "select one with --reg, such as hint"
        )
    return wanted


def features_of(reg: str, fusion: str, wanted: str | None, shards: AlignedSet) -> tuple[str, ...]:
    """Return `Config.features`: those wanted, else all; empty for the baseline."""
    if reg != "none" and fusion == "features":
        raise UsageError(
            f"--reg {reg} --fusion features: there is no embedding to regularize; omit one of them"
        )
    if reg == "none" and fusion == "none":
        if wanted:
            raise UsageError(
                f"--features {wanted}: the baseline uses no features; select a method "
                "with --reg or --fusion"
            )
        return ()
    return choose_features(shards, wanted)


def alpha_of(reg: str, preset: str, wanted: float | None) -> float:
    """Return `Config.alpha`: that wanted, else the preset's or the paper's."""
    if reg == "none":
        if wanted is not None:
            raise UsageError(
                f"--alpha {wanted:g}: there is no regularizer to weight; select one with --reg"
            )
        return 0.0
    if wanted is not None:
        return wanted
    from ..regularizers.registry import build_regularizer

    paper = build_regularizer(reg, feature_dim=1, embedding_dim=1)
    return ALPHAS.get(preset, {}).get(reg, paper.default_alpha if paper else 0.0)
