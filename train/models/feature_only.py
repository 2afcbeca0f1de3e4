"""Classifier on the features only, without audio."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Output, Tagger, required
from .decoder import Decoder
from .time import to_frames


class FeatureOnly(Tagger):
    """A decoder on the features, without an encoder.

    Parameters
    ----------
    frames
        T_E, number of frames that the features are resampled to: that of the other methods'
        embedding, so that the decoders of all methods receive equally many frames.
    feature_dim
        B_F, dimensions of the features v.
    classes
        Number of classes.
    """

    needs_audio: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True

    def __init__(self, frames: int, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.frames = frames
        self.decoder = Decoder(feature_dim, classes)

    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return the logits and v on T_E frames; the audio is not used."""
        v = to_frames(required(features, "features"), self.frames)
        return Output(self.decoder(v[:labelled]), v)
