"""Values of the options that select a method, checked against each other and the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featreg.datasets.base import UsageError

from ..regularizers.registry import parts_of
from .choose_data import choose_features
from .presets import ALPHAS

if TYPE_CHECKING:
    from ..data.aligned_set import AlignedSet

_SCORES = {"taggram": "musicnn.output=taggram", "scores": "efficientat.output=scores"}
"""Outputs of extractors that are class scores -> how they are requested."""


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


def alphas_of(reg: str, preset: str, wanted: Sequence[float] | float | None) -> tuple[float, ...]:
    """Return the weight of each regularizer: those wanted, else the preset's or the paper's."""
    parts = parts_of(reg)
    values = (wanted,) if isinstance(wanted, (int, float)) else tuple(wanted or ())
    text = "+".join(f"{value:g}" for value in values)
    if values and not parts:
        raise UsageError(
            f"--alpha {text}: there is no regularizer to weight; select one with --reg"
        )
    if values and len(values) != len(parts):
        raise UsageError(
            f"--alpha {text} --reg {reg}: expected {len(parts)} weights, found {len(values)}; give "
            "one for each regularizer, joined by +"
        )
    return values or tuple(_default_alpha(name, preset) for name in parts)


def _default_alpha(name: str, preset: str) -> float:
    from ..regularizers.registry import build_regularizer

    paper = build_regularizer(name, feature_dim=1, embedding_dim=1)
    return ALPHAS.get(preset, {}).get(name, paper.default_alpha if paper else 0.0)


def alpha_schedule_of(reg: str, wanted: str) -> str:
    """Return `Config.alpha_schedule`, which needs a regularizer."""
    if wanted != "constant" and reg == "none":
        raise UsageError(
            f"--alpha-schedule {wanted}: there is no regularizer to weight; select one with --reg"
        )
    return wanted


def require_scores(
    reg: str, norm: str, features: Sequence[str], described: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check that the regularizer `scores` gets class scores as they are.

    Parameters
    ----------
    reg, norm, features
        As in `Config` and its recipe.
    described
        Feature name -> description in the aligned shards.

    Raises
    ------
    UsageError
        If a feature is another output of its extractor, or the features are normalized.
    """
    if "scores" not in parts_of(reg):
        return
    if norm != "none":
        raise UsageError(
            f"--reg {reg} --feature-norm {norm}: `scores` needs probabilities as they are; use "
            "--feature-norm none"
        )
    for name in features:
        output = (described[name].get("settings") or {}).get("output")
        if output is not None and output not in _SCORES:
            raise UsageError(
                f"--reg {reg}: {name} (output={output}) is not a teacher's class scores; extract "
                f"{' or '.join(_SCORES.values())}, and select it with --features"
            )
