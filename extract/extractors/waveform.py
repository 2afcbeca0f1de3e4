"""The signal that the model hears, kept as one more feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Extractor, Quantization, Signal


@dataclass(frozen=True, slots=True)
class WaveformConfig:
    """Nothing to choose: 16 kHz is what every model here hears."""


class Waveform(Extractor):
    """16 kHz mono audio as 16-bit integers: ``value = stored / 32767``, clipped to [-1, 1]."""

    name = "audio"
    Config = WaveformConfig
    sample_rate = 16000
    dim = 1
    dtype = np.int16
    quantization = Quantization(scale=1 / 32767)
    timing = FrameTiming(hop_s=1 / 16000, window_s=1 / 16000, first_center_s=0.0)
    batch_frames = 1 << 20

    def frames(self, samples: int) -> int:
        """One row a sample."""
        return samples

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """The samples themselves, shape (stop - start, 1)."""
        return signal[start:stop, None]

    def network(self, inputs: Array) -> Array:
        """Samples to integers, rounded to the nearest."""
        stored: Array = np.rint(np.clip(inputs, -1.0, 1.0) * 32767).astype(np.int16)
        return stored
