"""Con-Reg: the embedding points where the features point."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..models.time import to_frames
from .base import Regularizer, unit, weighted_mean


class ConReg(Regularizer):
    """Consistency regularization (Hung and Lerch 2022).

    With f, a learned map from the space of the features to that of the embedding::

        loss = mean over clips and frames t of d_cos(l_t, f(v)_t)      in [0, 2]
        d_cos(a, b) = 1 - cos(a, b)

    f is a 1-D convolution of kernel size 1 with a bias: one affine map for all frames.
    v comes to T_E frames first, which for an affine map is the same as afterwards.
    Gradients go to l and to f, none to v. Over several devices with equal shares of a
    batch, averaged gradients are those of the whole batch.

    Parameters
    ----------
    feature_dim
        B_F.
    embedding_dim
        B_E.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar.
    """

    default_alpha: ClassVar[float] = 5.0

    def __init__(self, feature_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.f = nn.Conv1d(feature_dim, embedding_dim, kernel_size=1)

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        v = to_frames(features, embedding.shape[1])
        target = self.f(v.transpose(1, 2)).transpose(1, 2)
        distance = 1 - (unit(embedding) * unit(target)).sum(-1)
        return weighted_mean(distance, weight[:, None])
