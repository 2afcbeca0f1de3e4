"""Weighted sum of regularizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Regularizer


class Combination(Regularizer):
    """The sum of several regularizers of the same embedding by the same features.

    ::

        loss = sum over k of weight_k * loss_k

    Parameters
    ----------
    parts
        The regularizers.
    weights
        Weight of each regularizer, at least 0.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar.
    """

    default_alpha: ClassVar[float] = 1.0

    def __init__(self, parts: Sequence[Regularizer], weights: Sequence[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.weights = tuple(weights)

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        losses = [part.loss(embedding, features, weight) for part in self.parts]  # type: ignore[operator]
        scaled = [w * each for w, each in zip(self.weights, losses, strict=True)]
        return torch.stack(scaled).sum()
