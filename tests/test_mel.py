from __future__ import annotations

from typing import Literal

import librosa
import numpy as np
import pytest

from featreg.extract.extractors.mel import MelScale, hz_to_mel, mel_filterbank, mel_to_hz


# The front ends that the project computes, and one that starts above 0 Hz.
@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "fmin", "fmax"),
    [
        (16000, 512, 96, 0.0, 8000.0),
        (48000, 2048, 128, 0.0, 24000.0),
        (48000, 2048, 256, 0.0, 24000.0),
        (16000, 512, 64, 125.0, 7500.0),
    ],
)
@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.filterwarnings("ignore:Empty filters")  # 256 HTK bands have some, here and there
def test_filterbank_is_librosas(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    scale: MelScale,
    norm: Literal["slaney"] | None,
) -> None:
    expected = librosa.filters.mel(
        sr=sample_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        htk=scale == "htk",
        norm=norm,
    )
    found = mel_filterbank(sample_rate, n_fft, n_mels, fmin, fmax, scale, norm)
    assert found.shape == (n_mels, n_fft // 2 + 1)
    assert found.dtype == np.float32
    # Both are a dozen float64 operations, rounded to float32 at the same places. Where those
    # differ in the last bit (2595 log10 is 1127 ln only to four digits), float32 rarely does.
    np.testing.assert_allclose(found, expected, rtol=2.0**-22, atol=1e-12)
    assert np.mean(found != expected) < 1e-3


@pytest.mark.parametrize(
    ("scale", "hz", "mel"),
    [
        ("htk", 700.0, 1127.0 * np.log(2.0)),
        ("slaney", 200.0, 3.0),
        ("slaney", 1000.0, 15.0),
        ("slaney", 6400.0, 42.0),
    ],
)
def test_scales_at_their_defining_points(scale: MelScale, hz: float, mel: float) -> None:
    assert hz_to_mel(hz, scale) == pytest.approx(mel, rel=1e-12)
    assert mel_to_hz(mel, scale) == pytest.approx(hz, rel=1e-12)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_to_hz_inverts_hz_to_mel(scale: MelScale) -> None:
    hz = np.linspace(0.0, 24000.0, 1001)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, rtol=1e-12, atol=1e-9)


def test_slaney_norm_gives_every_triangle_area_one() -> None:
    # With bins of about 0.5 Hz the sum over bins is the integral to within a thousandth.
    n_fft = 2**15
    filters = mel_filterbank(16000, n_fft, 40, 0.0, 8000.0, "slaney", "slaney")
    np.testing.assert_allclose(filters.sum(axis=1) * 16000 / n_fft, 1.0, rtol=1e-3)
