"""The audio signal, the input of the classifier, stored like a feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featreg.datasets.audio.pcm16 import SCALE, to_pcm16
from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Extractor, Quantization, Signal


@dataclass(frozen=True, slots=True)
class WaveformConfig:
    """Configuration without settings: the audio is always stored at 16 kHz."""


class Waveform(Extractor):
    """16 kHz mono audio as 16-bit integers: ``value = stored / 32767``, clipped to [-1, 1]."""

    name = "audio"
    Config = WaveformConfig
    sample_rate = 16000
    dim = 1
    dtype = np.int16
    quantization = Quantization(scale=1 / SCALE)
    timing = FrameTiming(hop_s=1 / 16000, window_s=1 / 16000, first_center_s=0.0)
    batch_frames = 1 << 20

    def frames(self, samples: int) -> int:
        """Number of frames, one per sample."""
        return samples

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Samples `start` to `stop` - 1, shape (stop - start, 1)."""
        return signal[start:stop, None]

    def network(self, inputs: Array) -> Array:
        """The inputs, unchanged."""
        return inputs

    def quantize(self, values: Array) -> Array:
        """Samples as integers, rounded to the nearest."""
        return to_pcm16(values)
