"""Probe: a linear layer or a small multilayer perceptron on features pooled over time."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Output, Tagger, required

POOLS = ("mean", "mean+std", "max")
"""Names of the ways of pooling frames over time, as on the command line."""


def pool_frames(frames: Tensor, pool: str) -> Tensor:
    """Pool frames over time.

    Parameters
    ----------
    frames
        Shape (batch, T, B_F).
    pool
        One of `POOLS`; ``std`` is the standard deviation of the T frames (divisor T).

    Returns
    -------
    Shape (batch, B_F); (batch, 2 B_F) for ``mean+std``.
    """
    if pool == "max":
        return frames.amax(dim=1)
    mean = frames.mean(dim=1)
    if pool == "mean":
        return mean
    return torch.cat([mean, frames.std(dim=1, correction=0)], dim=1)


class Probe(Tagger):
    """Pooling over time, standardization, and a linear layer or a multilayer perceptron.

    Parameters
    ----------
    feature_dim
        B_F, dimensions of the features.
    classes
        Number of classes.
    pool
        One of `POOLS`.
    hidden
        Units of the hidden layer, which is followed by ReLU; 0 for a linear layer only.

    Attributes
    ----------
    mean, std
        Statistics of the pooled training features, by which the input is standardized.
    head
        The layers that map standardized pooled features to logits.
    """

    needs_audio: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True
    mean: Tensor
    std: Tensor

    def __init__(self, feature_dim: int, classes: int, pool: str = "mean", hidden: int = 0) -> None:
        super().__init__()
        self.pool = pool
        dim = feature_dim * (2 if pool == "mean+std" else 1)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.head: nn.Module = nn.Linear(dim, classes)
        if hidden:
            layers = (nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, classes))
            self.head = nn.Sequential(*layers)

    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return the logits and the standardized pooled features, as one frame."""
        return self.classify(pool_frames(required(features, "features"), self.pool), labelled)

    def classify(self, pooled: Tensor, labelled: int | None = None) -> Output:
        """Return the output for features that are already pooled, of shape (batch, dim)."""
        standardized = (pooled - self.mean) / self.std
        return Output(self.head(standardized[:labelled]), standardized[:, None])
