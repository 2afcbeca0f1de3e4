"""Base class of the regularizers, and the cosine distance that both of the paper's use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from featreg.datasets.base import UsageError

EPS = 1e-8
"""Norm up to which a vector counts as zero."""


class Regularizer(nn.Module, ABC):
    """A loss that shapes an embedding by pre-trained features.

    Add it to the loss of the task, ``loss = task + alpha * regularizer(embedding, features)``,
    in training only: the features are not needed at inference. Where a regularizer has
    parameters, give them to the optimizer together with the model's.

    Attributes
    ----------
    default_alpha
        The paper's weight of the loss.
    """

    default_alpha: ClassVar[float]

    def forward(self, embedding: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch.

        Embedding and features cover the same time and may differ in frames: the features are
        repeated or averaged to the embedding's frames. Gradients reach the embedding and the
        parameters of the regularizer, not the features. Where there is nothing to compare (no
        clip counts, or for `DisReg` only one), loss and gradients are zero.

        Parameters
        ----------
        embedding
            Shape (batch, T_E, B_E). One vector per clip is ``embedding[:, None]``.
        features
            Shape (batch, T_F, B_F), T_F >= 1.
        mask
            Shape (batch,), 1 for clips that count and 0 for clips without features, whose
            `features` may hold anything. None counts all clips.

        Returns
        -------
        Scalar, float32 also under autocast (float64 for a float64 embedding).

        Raises
        ------
        UsageError
            If a shape is not as above.
        """
        _check_shapes(embedding, features, mask)
        with torch.autocast(embedding.device.type, enabled=False):
            precise = torch.promote_types(embedding.dtype, torch.float32)
            everyone = torch.ones(len(embedding), device=embedding.device)
            weight = (everyone if mask is None else mask).to(precise)
            known = torch.where(weight[:, None, None] > 0, features.detach().to(precise), 0.0)
            return self.loss(embedding.to(precise), known, weight)

    @abstractmethod
    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """`forward` in full precision; features of clips with weight 0 are 0."""


def _check_shapes(embedding: Tensor, features: Tensor, mask: Tensor | None) -> None:
    l, v = tuple(embedding.shape), tuple(features.shape)  # noqa: E741  the paper's name
    if len(l) != 3 or len(v) != 3 or l[0] != v[0] or v[1] < 1:
        raise UsageError(
            "expected an embedding of shape (batch, T_E, B_E) and features of shape "
            f"(batch, T_F, B_F), T_F >= 1; found {l} and {v}"
        )
    if mask is not None and tuple(mask.shape) != l[:1]:
        raise UsageError(f"expected a mask of shape ({l[0]},), found {tuple(mask.shape)}")


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
