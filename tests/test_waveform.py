"""The signal that the model hears, as a feature."""

from __future__ import annotations

import numpy as np

from featreg.extract.extractors.waveform import Waveform, WaveformConfig


def test_the_waveform_is_16_bit_and_clipped() -> None:
    signal = np.array([0.0, 1.0, -1.0, 1.5, 0.5 / 32767, 1.6 / 32767], np.float32)
    stored = Waveform(WaveformConfig(), {}).extract(signal)[:, 0]
    np.testing.assert_array_equal(stored, [0, 32767, -32767, 32767, 0, 2])
