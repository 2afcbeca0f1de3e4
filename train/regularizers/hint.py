"""Hint: prediction of the features from the embedding."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from featreg.datasets.base import UsageError

from ..models.time import to_frames
from .base import Regularizer, unit, weighted_mean

Distance = Literal["cosine", "squared"]


class Hint(Regularizer):
    """Predict the teacher's features from the embedding (Romero et al. 2015, eq. 3).

    With g, a two-layer map from the embedding to the space of the features::

        cosine:   loss = mean over clips and frames t of 1 - cos(g(l_t), v_t)      in [0, 2]
        squared:  loss = mean over clips, frames t and dimensions of (g(l_t) - v_t)^2

    Romero et al. use the squared distance. Con-Reg maps in the other direction, from the
    features to the embedding, where a constant direction can minimize the loss; here the
    embedding has to contain what distinguishes the features. Standardize the features first
    (``--feature-norm standardize``), because a common direction of all v would dominate the cosine.

    Gradients reach l and g, not v.

    Parameters
    ----------
    feature_dim
        B_F, dimensions of the features.
    embedding_dim
        B_E, dimensions of the embedding.
    hidden
        Number of units of g's hidden layer.
    distance
        ``cosine`` or ``squared``.

    Shape
    -----
    embedding (batch, T_E, B_E), features (batch, T_F, B_F), mask (batch,) -> scalar.

    Raises
    ------
    UsageError
        If there is no such distance.
    """

    default_alpha: ClassVar[float] = 5.0

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        hidden: int = 256,
        distance: Distance = "cosine",
    ) -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise UsageError(f"distance {distance!r}: expected {' or '.join(get_args(Distance))}")
        self.distance = distance
        self.g = nn.Sequential(
            nn.Linear(embedding_dim, hidden), nn.ReLU(), nn.Linear(hidden, feature_dim)
        )

    def loss(self, embedding: Tensor, features: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        target = to_frames(features, embedding.shape[1])
        predicted = self.g(embedding)
        if self.distance == "cosine":
            distance = 1 - (unit(predicted) * unit(target)).sum(-1)
        else:
            distance = F.mse_loss(predicted, target, reduction="none").mean(-1)
        return weighted_mean(distance, weight[:, None])
