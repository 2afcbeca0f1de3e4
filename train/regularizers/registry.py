"""Names of regularizers; torch is imported when one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featreg.datasets.base import UsageError

if TYPE_CHECKING:
    from .base import Regularizer

REGULARIZERS = ("none", "conreg", "disreg", "hint", "dcor", "rkd", "scores")
"""Names of the regularizers, as on the command line."""

STANDARDIZED = frozenset({"hint"})
"""Regularizers whose features are standardized unless ``--feature-norm`` is given."""


def parts_of(name: str) -> tuple[str, ...]:
    """Return the names in a combination such as ``hint+disreg``; none for ``none``."""
    return tuple(part for part in name.split("+") if part != "none")


def default_norm(name: str) -> str:
    """Return the normalization of the features that a regularizer or combination uses.

    It is ``standardize`` if one of `STANDARDIZED` is included, unless `scores` is, too, which
    needs probabilities.
    """
    parts = set(parts_of(name))
    return "standardize" if parts & STANDARDIZED and "scores" not in parts else "none"


def build_regularizer(name: str, feature_dim: int, embedding_dim: int) -> Regularizer | None:
    """Build the regularizer `name`; return None for ``none``.

    Parameters
    ----------
    name
        One of `REGULARIZERS`.
    feature_dim, embedding_dim
        B_F and B_E, dimensions of the features and of the embedding.

    Raises
    ------
    UsageError
        If there is no such regularizer.
    """
    if name == "none":
        return None
    if name == "conreg":
        from .conreg import ConReg

        return ConReg(feature_dim, embedding_dim)
    if name == "disreg":
        from .disreg import DisReg

        return DisReg()
    if name == "hint":
        from .hint import Hint

        return Hint(feature_dim, embedding_dim)
    if name == "dcor":
        from .dcor import DistanceCorrelation

        return DistanceCorrelation()
    if name == "rkd":
        from .rkd import RKD

        return RKD()
    if name == "scores":
        from .scores import Scores

        return Scores(feature_dim, embedding_dim)
    raise UsageError(f"regularizer {name!r} not found; choose from {', '.join(REGULARIZERS)}")
