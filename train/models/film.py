"""Fusion by feature-wise linear modulation: the features scale and shift the embedding."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from .base import Encoder, Output, Tagger, required
from .decoder import Decoder
from .time import to_frames


class FiLM(Tagger):
    """Classifier whose decoder receives gamma * l + beta, frame by frame (Perez et al. 2018).

    gamma and beta are affine maps of v, from B_F to B_E dimensions.

    Parameters
    ----------
    encoder
        Encoder that computes l.
    feature_dim
        B_F, dimensions of the features v.
    classes
        Number of classes.
    """

    needs_features: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.gamma = nn.Linear(feature_dim, encoder.dim)
        self.beta = nn.Linear(feature_dim, encoder.dim)
        self.decoder = Decoder(encoder.dim, classes)

    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return the logits and l, before the modulation."""
        embedding = self.encoder(required(audio, "audio"))
        v = to_frames(required(features, "features"), embedding.shape[1])
        modulated = self.gamma(v) * embedding + self.beta(v)
        return Output(self.decoder(modulated[:labelled]), embedding)
