"""Relational knowledge distillation of distances and angles between clips."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.time import to_frames
from .base import Regularizer, pairwise_distances, unit


class RKD(Regularizer):
    """Relational knowledge distillation (Park et al. 2019, eq. 5 to 9).

    At each frame t, over the clips of the batch, with h the Huber loss (delta 1)::

        distance:  mean over pairs i < j of h(|l_i - l_j| / mu_l, |v_i - v_j| / mu_v)
        angle:     mean over triplets of h(cos of the angle at l_j between l_i and l_k,
                                           the same of v)
        loss = mean over t of distance + angle_weight * angle

    mu is the mean distance over all pairs. Park et al. weight the angles twice as much as the
    distances. Dis-Reg is similar: it compares cosine distances by their absolute difference.
    There are no parameters. Gradients reach l, not v. The loss is 0 for fewer than two clips.
    Memory grows with T_E * batch^3. On several devices, the loss is computed on each device's
    share of the batch.

    Parameters
    ----------
    angle_weight
        Weight of the angle term; 0 disables it.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar.
    """

    default_alpha: ClassVar[float] = 1.0

    def __init__(self, angle_weight: float = 2.0) -> None:
        super().__init__()
        self.angle_weight = angle_weight

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        chosen = weight > 0
        if int(chosen.sum()) < 2:
            return 0.0 * embedding.sum()
        l, v = embedding[chosen], to_frames(features, embedding.shape[1])[chosen]  # noqa: E741
        loss = F.huber_loss(_scaled_distances(l), _scaled_distances(v))
        if self.angle_weight and len(l) > 2:
            loss = loss + self.angle_weight * F.huber_loss(_cosines(l), _cosines(v))
        return loss


def _scaled_distances(x: Tensor) -> Tensor:
    """Return the distances of all pairs i < j divided by their mean, of shape (T, pairs)."""
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    distances = pairwise_distances(x)[:, i, j]
    mean = distances.mean(1, keepdim=True)
    return torch.where(mean > 0, distances / torch.where(mean > 0, mean, 1.0), 0.0)


def _cosines(x: Tensor) -> Tensor:
    """Return the cosines of the angles at j between i and k, for all triplets with i < k."""
    x = x.transpose(0, 1)
    arms = unit(x[:, None] - x[:, :, None])  # arms[t, j, i] points from clip j to clip i
    cosines = arms @ arms.transpose(-1, -2)
    n = x.shape[1]
    j, i, k = torch.meshgrid(*[torch.arange(n, device=x.device)] * 3, indexing="ij")
    return cosines[:, (i < k) & (i != j) & (k != j)]
