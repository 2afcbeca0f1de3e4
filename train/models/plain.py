"""Audio-only classifier: the baseline, and the model that regularizers are applied to."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Encoder, Output, Tagger, required
from .decoder import Decoder


class Plain(Tagger):
    """Encoder and decoder, without features as input.

    Parameters
    ----------
    encoder
        Encoder that computes l.
    classes
        Number of classes.
    """

    needs_features: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.dim, classes)

    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return the logits and l; the features are not used."""
        embedding = self.encoder(required(audio, "audio"))
        return Output(self.decoder(embedding[:labelled]), embedding)
