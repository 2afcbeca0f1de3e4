"""The encoder and a decoder: the baseline, and what regularizers train."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Encoder, Output, Tagger, required
from .decoder import Decoder


class Plain(Tagger):
    """Audio alone.

    Parameters
    ----------
    encoder
        Gives l.
    classes
        Number of logits.
    """

    needs_features: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.dim, classes)

    def forward(self, audio: Tensor | None, features: Tensor | None = None) -> Output:
        """Logits and l; the features are not looked at."""
        embedding = self.encoder(required(audio, "audio"))
        return Output(self.decoder(embedding), embedding)
