"""Scores: prediction of the teacher's class probabilities from the embedding."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from featreg.datasets.base import FeatregError

from ..models.time import to_frames
from .base import Regularizer, weighted_mean


class Scores(Regularizer):
    """Match the teacher's class scores as soft targets (Hinton et al. 2015).

    The features are the teacher's probabilities p of K classes of its own, for example
    ``efficientat.output=scores`` or ``musicnn.output=taggram``. A linear layer on the embedding
    predicts them::

        q_t = sigmoid(W l_t + b)
        loss = mean over clips, frames t and classes of KL(p_t || q_t)      >= 0

    KL is the divergence of two Bernoulli distributions, that is, binary cross-entropy minus the
    entropy of p, so that a perfect prediction has loss 0. Since the teacher's classes are not
    exclusive, there is no softmax with temperature as in Hinton et al. Gradients reach l, W and
    b, not p.

    Parameters
    ----------
    feature_dim
        K, number of the teacher's classes.
    embedding_dim
        B_E, dimensions of the embedding.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, K) in [0, 1], mask (batch,) -> scalar.
    """

    default_alpha: ClassVar[float] = 1.0

    def __init__(self, feature_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(embedding_dim, feature_dim)

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class.

        Raises
        ------
        FeatregError
            If the features are not probabilities.
        """
        if features.numel() and not (features.min() >= 0 and features.max() <= 1):
            raise FeatregError(
                "the regularizer `scores` needs probabilities in [0, 1], found features from "
                f"{features.min():.3g} to {features.max():.3g}; use the class scores of a teacher "
                "(musicnn.output=taggram), without standardization"
            )
        p = to_frames(features, embedding.shape[1]).clamp(0, 1)
        logits = self.head(embedding)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, p, reduction="none")
        divergence = cross_entropy - F.binary_cross_entropy(p, p, reduction="none")
        return weighted_mean(divergence.mean(-1), weight[:, None])
