"""What a regularizer is, and the distance that both of the paper's are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

EPS = 1e-8
"""A vector no longer than this counts as zero."""


class Regularizer(nn.Module, ABC):
    """A loss that shapes the embedding l by pre-trained features v, in training only.

    The training loss is ``task + alpha * regularizer(l, v, mask)``. Parameters that a
    regularizer owns are trained with the model and are no part of it afterwards.

    Attributes
    ----------
    default_alpha
        The paper's alpha.
    """

    default_alpha: ClassVar[float]

    def forward(self, embedding: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss, a scalar; float32 also under autocast (float64 for float64 input).

        No gradient reaches the features. Where there is nothing to compare (an empty
        mask, for Dis-Reg also a single clip), loss and gradients are zero.

        Parameters
        ----------
        embedding
            l of shape (batch, T_E, B_E).
        features
            v of shape (batch, T_F, B_F) over the same time, T_F >= 1.
        mask
            Shape (batch,), 1 for clips that count, 0 for clips without features, whose
            v may hold anything. None counts all.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            precise = torch.promote_types(embedding.dtype, torch.float32)
            everyone = torch.ones(len(embedding), device=embedding.device)
            weight = (everyone if mask is None else mask).to(precise)
            known = torch.where(weight[:, None, None] > 0, features.detach().to(precise), 0.0)
            return self.loss(embedding.to(precise), known, weight)

    @abstractmethod
    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """`forward` in full precision; features of clips with weight 0 are 0."""


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to length 1.

    A vector no longer than `EPS` becomes zero and gets no gradient: its cosine with
    anything is 0, its distance 1.
    """
    norm = x.norm(dim=-1, keepdim=True)
    return torch.where(norm > EPS, x / norm.clamp(min=EPS), 0.0)


def pairwise_distances(x: Tensor) -> Tensor:
    """Euclidean distance of each pair of clips at each frame: (batch, T, B) to (T, batch, batch).

    Equal clips have distance 0 and get no gradient from it.
    """
    x = x.transpose(0, 1)
    squares = (x[:, :, None] - x[:, None]).square().sum(-1)
    apart = squares > EPS**2
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


def weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Mean of `value`, weighted by 0 or 1 (broadcast to its shape); 0 where all are 0."""
    count = weight.expand_as(value).sum()
    return (value * weight).sum() / count.clamp(min=1)
