"""A feature without weights, for tests: mean square and peak of every half second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.base import Array, Extractor, Signal


@dataclass(frozen=True)
class LoudnessConfig:
    gain: float = 1.0


class Loudness(Extractor):
    name = "loudness"
    Config = LoudnessConfig
    sample_rate = 8000
    dim = 2
    timing = FrameTiming(0.5, 0.5, 0.25)
    batch_frames = 5

    def frames(self, samples: int) -> int:
        return max(1, samples // 4000)

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        padded = np.pad(signal, (0, max(0, 4000 - len(signal))))
        return padded[start * 4000 : stop * 4000].reshape(stop - start, 4000)

    def network(self, inputs: Array) -> Array:
        scaled = inputs * np.float32(self.config.gain)
        return np.stack([np.square(scaled).mean(axis=1), np.abs(scaled).max(axis=1)], axis=1)
