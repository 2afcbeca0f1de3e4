"""Dis-Reg: clips that lie apart in the features lie as far apart in the embedding."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..models.time import to_frames
from .base import Regularizer, unit, weighted_mean


class DisReg(Regularizer):
    """Distance regularization (Hung and Lerch 2022).

    ::

        loss = mean over frames t and pairs i < j of clips in the batch
               of |d_cos(l_i,t, l_j,t) - d_cos(v_i,t, v_j,t)|           in [0, 2]
        d_cos(a, b) = 1 - cos(a, b)

    It compares distances within one space to distances within the other, so it needs
    no map between them and has no parameters. v comes to T_E frames first. Gradients go
    to l, none to v.

    Pairs are local: over several devices they are those within each device's share of
    the batch, nothing is gathered, and averaged gradients are those of the mean of the
    devices' losses. Memory grows with T_E * batch^2.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar; a
    pair counts if both of its clips do.
    """

    default_alpha: ClassVar[float] = 1.0

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        v = to_frames(features, embedding.shape[1])
        difference = (_cosines(embedding) - _cosines(v)).abs()  # that of the distances
        pairs = torch.triu(weight[:, None] * weight, diagonal=1)
        return weighted_mean(difference, pairs)


def _cosines(x: Tensor) -> Tensor:
    """Cosine of each pair of clips at each frame: (batch, T, B) to (T, batch, batch)."""
    x = unit(x).transpose(0, 1)
    return x @ x.transpose(1, 2)
