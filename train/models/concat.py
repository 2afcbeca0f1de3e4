"""Fusion by concatenation of embedding and features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .base import Encoder, Output, Tagger, required
from .decoder import Decoder
from .time import to_frames


class Concat(Tagger):
    """Classifier whose decoder receives [l; v], B_E + B_F dimensions per frame.

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
        self.decoder = Decoder(encoder.dim + feature_dim, classes)

    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return the logits and l."""
        embedding = self.encoder(required(audio, "audio"))
        v = to_frames(required(features, "features"), embedding.shape[1])
        return Output(self.decoder(torch.cat((embedding, v), dim=-1)[:labelled]), embedding)
