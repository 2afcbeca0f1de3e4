"""The decoder on the features alone: what the features know by themselves."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Output, Tagger, required
from .decoder import Decoder
from .time import to_frames


class FeatureOnly(Tagger):
    """Features without an encoder.

    Parameters
    ----------
    frames
        T_E: v is brought to as many frames as the other methods decode, so that all of
        them see the same features.
    feature_dim
        B_F.
    classes
        Number of logits.
    """

    needs_audio: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True

    def __init__(self, frames: int, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.frames = frames
        self.decoder = Decoder(feature_dim, classes)

    def forward(self, audio: Tensor | None, features: Tensor | None = None) -> Output:
        """Logits and v on T_E frames; the audio is not looked at."""
        v = to_frames(required(features, "features"), self.frames)
        return Output(self.decoder(v), v)
