"""A feature as its user would write it, in a module of theirs: librosa's chroma."""

from __future__ import annotations

import librosa
import numpy as np

from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.custom import WholeClip

HOP = 1024


class Chroma(WholeClip):
    name = "chroma"
    sample_rate = 22050
    dim = 12
    timing = FrameTiming(hop_s=HOP / 22050, window_s=2048 / 22050, first_center_s=0.0)

    def compute(self, signal: np.ndarray) -> np.ndarray:
        return librosa.feature.chroma_stft(
            y=signal, sr=self.sample_rate, hop_length=HOP, tuning=0.0
        ).T
