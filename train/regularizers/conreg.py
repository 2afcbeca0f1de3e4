"""Con-Reg: each frame of the embedding points in the direction of the mapped feature."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from featreg.datasets.base import UsageError

from ..models.time import to_frames
from .base import Regularizer, unit, weighted_mean


class ConReg(Regularizer):
    """Consistency regularization of an embedding l by features v.

    ::

        loss = mean over clips and frames t of d_cos(l_t, f(v_t))      in [0, 2]
        d_cos(a, b) = 1 - cos(a, b)

    f is a learned affine map from B_F to B_E dimensions (a 1-D convolution of kernel size 1), so
    its parameters belong in the optimizer. The features are brought to T_E frames before f,
    which for an affine map equals doing so afterwards. On several devices with equal shares of a
    batch, averaged gradients equal those of the whole batch.

    Parameters
    ----------
    feature_dim
        B_F, dimensions of the features.
    embedding_dim
        B_E, dimensions of the embedding.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar.

    References
    ----------
    Y.-N. Hung and A. Lerch, "Feature-informed Embedding Space Regularization For Audio
    Classification", 2022: Con-Reg.

    Examples
    --------
    >>> import torch
    >>> import featreg
    >>> conreg = featreg.ConReg(feature_dim=512, embedding_dim=256)
    >>> conreg(torch.randn(16, 2, 256), torch.randn(16, 50, 512)).shape
    torch.Size([])
    """

    default_alpha: ClassVar[float] = 5.0

    def __init__(self, feature_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.f = nn.Conv1d(feature_dim, embedding_dim, kernel_size=1)

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        expected, found = (
            (self.f.out_channels, self.f.in_channels),
            (embedding.shape[2], features.shape[2]),
        )
        if found != expected:
            raise UsageError(
                f"expected an embedding of {expected[0]} and features of {expected[1]} dimensions, "
                f"found {found[0]} and {found[1]}"
            )
        v = to_frames(features, embedding.shape[1])
        target = self.f(v.transpose(1, 2)).transpose(1, 2)
        distance = 1 - (unit(embedding) * unit(target)).sum(-1)
        return weighted_mean(distance, weight[:, None])
