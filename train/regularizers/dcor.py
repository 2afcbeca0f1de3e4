"""Distance correlation of embedding and features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..models.time import to_frames
from .base import EPS, Regularizer, pairwise_distances

_FEWEST_CLIPS = 4  # U-centering divides by n - 3


class DistanceCorrelation(Regularizer):
    """One minus the distance correlation of embedding and features over the batch.

    Used for this purpose by Y. Ding and A. Lerch, "Audio embeddings as teachers for music
    classification", ISMIR 2023. The estimator is the bias-corrected one of G. J. Székely and
    M. L. Rizzo, "Partial distance correlation with methods for dissimilarities", Annals of
    Statistics 42, 2014. At each frame t, the distances a_ij = ||l_i,t - l_j,t|| of n clips, and
    those of v, b_ij, are U-centered for i != j (0 on the diagonal)::

        A_ij = a_ij - sum_k a_ik / (n - 2) - sum_k a_kj / (n - 2)
               + sum_kl a_kl / ((n - 1)(n - 2))
        loss = mean over t of 1 - <A, B> / sqrt(<A, A> <B, B>)      in [0, 2]

    Like Dis-Reg, it compares the distances in the two spaces, but it requires only a monotonic
    relation between them. It has no parameters. Gradients reach l, not v. The loss is 0 for fewer
    than four clips, or if all clips are equal. On several devices, it is computed on each
    device's share of the batch.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar.
    """

    default_alpha: ClassVar[float] = 1.0

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        chosen = weight > 0
        if int(chosen.sum()) < _FEWEST_CLIPS:
            return 0.0 * embedding.sum()
        v = to_frames(features, embedding.shape[1])
        A, B = (_u_centered(pairwise_distances(x[chosen])) for x in (embedding, v))
        product, left, right = ((x * y).sum((1, 2)) for x, y in ((A, B), (A, A), (B, B)))
        norm = (left * right).clamp(min=EPS**2).sqrt()
        return torch.where(norm > EPS, 1 - product / norm, 0.0 * product).mean()


def _u_centered(a: Tensor) -> Tensor:
    """Return U-centered distances of shape (T, n, n)."""
    n = a.shape[-1]
    rows = a.sum(-1, keepdim=True) / (n - 2)
    everything = a.sum((-2, -1), keepdim=True) / ((n - 1) * (n - 2))
    centered = a - rows - rows.transpose(-1, -2) + everything
    return centered * (1 - torch.eye(n, dtype=a.dtype, device=a.device))
