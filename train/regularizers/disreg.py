"""Dis-Reg: distances between clips in the embedding equal those in the features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..models.time import to_frames
from .base import Regularizer, unit, weighted_mean


class DisReg(Regularizer):
    """Distance regularization of an embedding l by features v.

    ::

        loss = mean over frames t and pairs i < j of clips in the batch
               of |d_cos(l_i,t, l_j,t) - d_cos(v_i,t, v_j,t)|           in [0, 2]
        d_cos(a, b) = 1 - cos(a, b)

    Distances within one space are compared with distances within the other, so no map between
    the spaces is needed and there are no parameters. The features are brought to T_E frames
    first.

    On several devices the pairs are those within each device's share of the batch; averaged
    gradients are those of the mean of the devices' losses. Memory grows with T_E * batch^2.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar; a pair
    counts if both of its clips do.

    References
    ----------
    Y.-N. Hung and A. Lerch, "Feature-informed Embedding Space Regularization For Audio
    Classification", 2022: Dis-Reg.

    Examples
    --------
    >>> import torch
    >>> import featreg
    >>> disreg = featreg.DisReg()
    >>> disreg(torch.randn(16, 2, 256), torch.randn(16, 50, 512)).shape
    torch.Size([])
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
