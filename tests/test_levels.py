"""Values outside [-1, 1], silence, and channels that cancel: one rule for all who receive audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from kit import make_clip
from sweeps import Samples, sweep

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.audio.levels import PEAK
from featreg.datasets.base import Clip, ClipError
from featreg.extract.extractors.waveform import Waveform, WaveformConfig
from featreg.extract.pipeline.decode import SILENCE, DecodedClip, DecodeOptions, decode_clip

KEEP = DecodeOptions((16000, 22050), "soxr_hq", keep_silent=True)
REFUSE = DecodeOptions((16000,), "soxr_hq", keep_silent=False)


def stored(path: Path, samples: Samples, subtype: str = "FLOAT") -> Clip:
    soundfile.write(path, samples, 16000, subtype=subtype)
    return make_clip(path)


@pytest.mark.parametrize("scale", [30_000.0, 1e6, 2e37, 1e30])
def test_integers_stored_as_floats_are_named(tmp_path: Path, scale: float) -> None:
    clip = stored(tmp_path / "a.wav", sweep() * np.float32(scale))
    with pytest.raises(ClipError, match=r"a\.wav: its values reach .*32768"):
        decode(clip)
    assert isinstance(decode_clip(clip, KEEP), ClipError)


def test_what_exceeds_1_a_little_is_clipped_for_everybody(tmp_path: Path) -> None:
    loud = sweep() * np.float32(0.99 * PEAK / np.abs(sweep()).max())
    clip = stored(tmp_path / "a.wav", loud)
    assert np.abs(decode(clip)[0]).max() > 7
    received = decode_clip(clip, KEEP)
    assert isinstance(received, DecodedClip)
    for signal in received.signals.values():
        assert np.abs(signal).max() == 1
    np.testing.assert_array_equal(received.signals[16000], np.clip(loud[:, 0], -1, 1))
    # What the classifier receives is what every extractor received, up to rounding to 16 bits.
    signal = received.signals[16000]
    feature = Waveform(WaveformConfig(), {}).extract(signal)[:, 0] / np.float32(32767)
    np.testing.assert_allclose(feature, signal, atol=0.5 / 32767 + 1e-7)


def test_resampling_does_not_exceed_1() -> None:
    square = np.where(np.arange(44100) // 50 % 2, 1, -1).astype(np.float32)
    assert np.abs(resample(square, 44100, 16000)).max() == 1


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("level", [1.0, 0.01])
def test_channels_that_cancel_are_named(tmp_path: Path, subtype: str, level: float) -> None:
    one = sweep() * np.float32(level)
    one_bit = np.random.default_rng(0).integers(0, 2, one.shape).astype(np.float32) / 32768
    for other in (-one, -one + one_bit):
        clip = stored(tmp_path / "a.wav", np.concatenate([one, other], 1), subtype)
        for options in (KEEP, REFUSE):
            outcome = decode_clip(clip, options)
            assert isinstance(outcome, ClipError)
            assert "a.wav: its channels cancel" in outcome.reason
            assert "opposite phase" in outcome.reason


def test_what_is_silent_or_quiet_does_not_cancel(tmp_path: Path) -> None:
    quiet = np.random.default_rng(0).integers(-1, 2, (16000, 2)).astype(np.float32) / 32768
    one_sided = np.concatenate([sweep() * np.float32(1e-3), 0 * sweep()], 1)
    for samples in (quiet, one_sided, sweep(channels=2) * np.float32(1e-4)):
        assert isinstance(decode_clip(stored(tmp_path / "a.wav", samples), REFUSE), DecodedClip)
    silent = stored(tmp_path / "a.wav", np.zeros((16000, 2), np.float32))
    assert isinstance(decode_clip(silent, KEEP), DecodedClip)
    refused = decode_clip(silent, REFUSE)
    assert isinstance(refused, ClipError)
    assert refused.stage == SILENCE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    samples = sweep(channels=2)
    samples[8000, 1] = value
    with pytest.raises(ClipError, match=r"not finite at 0\.500 s"):
        decode(stored(tmp_path / "a.wav", samples))
