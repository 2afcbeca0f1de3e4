"""EfficientAT's log-mel spectrogram against closed forms and slow sums."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from featreg.extract.extractors.efficientat_frontend import (
    log_mel,
    mel_filters,
    spectrogram_frames,
)


def test_one_frame_by_hand() -> None:
    signal = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    emphasized = signal[1:].astype(np.float64) - 0.97 * signal[:-1]
    n = np.arange(800)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * n / 799)
    mel = 1127 * np.log1p(15000 / 700) / 129  # from one corner to the next
    bins = 1127 * np.log1p(np.arange(513) * 31.25 / 700)
    for frame in (0, 1, 40, 99):
        places = np.abs(320 * frame - 400 + n)  # reflected at the first sample,
        last = len(emphasized) - 1
        places = last - np.abs(last - places)  # and at the last
        samples = emphasized[places] * taper
        angles = 2 * np.pi * np.outer(np.arange(513), n) / 1024
        power = (np.cos(angles) @ samples) ** 2 + (np.sin(angles) @ samples) ** 2
        found = log_mel(signal, frame, frame + 1)
        assert found.shape == (128, 1)
        for band in (0, 1, 60, 127):
            triangle = np.maximum(0, 1 - np.abs(bins / mel - (band + 1)))
            expected = (np.log(triangle @ power + 1e-5) + 4.5) / 5
            # float32 sums of some hundred samples
            assert found[band, 0] == pytest.approx(expected, abs=1e-5)


def test_filters() -> None:
    filters = mel_filters()
    assert filters.shape == (128, 512)
    assert filters.min() == 0
    assert filters.max() <= 1
    # Neighbors share each bin between the first and the last center.
    shared = np.flatnonzero(filters[0])[-1], np.flatnonzero(filters[127])[0]
    np.testing.assert_allclose(filters[:, shared[0] + 1 : shared[1]].sum(0), 1.0, atol=1e-12)
    assert not filters[:, 480:].any()  # 15 kHz and above


@pytest.mark.parametrize("samples", [514, 4000, 32000, 123457])
def test_parts_equal_the_whole(samples: int) -> None:
    signal = np.random.default_rng(1).uniform(-1, 1, samples).astype(np.float32)
    frames = spectrogram_frames(samples)
    whole = log_mel(signal, 0, frames)
    assert whole.shape == (128, frames)
    assert frames == 1 + (samples - 2) // 320
    cuts = sorted({0, 1, frames // 3, frames - 1, frames})
    parts = [log_mel(signal, a, b) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("samples", [1, 2, 300, 513])
def test_a_very_short_signal_is_followed_by_zeros(samples: int) -> None:
    signal = np.zeros(514, np.float32)
    signal[:samples] = np.random.default_rng(2).uniform(-1, 1, samples)
    assert spectrogram_frames(samples) == 2
    np.testing.assert_array_equal(log_mel(signal[:samples], 0, 2), log_mel(signal, 0, 2))


def test_silence_and_far_too_loud_are_finite() -> None:
    silence = log_mel(np.zeros(3200, np.float32), 0, 10)
    np.testing.assert_allclose(silence, (np.log(1e-5) + 4.5) / 5, rtol=1e-6)
    assert np.isfinite(log_mel(np.full(3200, 1e4, np.float32), 0, 10)).all()
