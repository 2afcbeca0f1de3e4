"""The probes of `benchmarks/teachers.py`."""

from __future__ import annotations

import sys

import librosa
import numpy as np
from command_lines import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
from teachers import fit_probe, log_mel_statistics


def test_a_probe_separates_what_is_separable() -> None:
    rng = np.random.default_rng(0)
    label = {split: rng.integers(0, 4, 200) for split in ("train", "valid", "test")}
    vectors = {
        split: 100 * (np.eye(4)[y] + rng.normal(0, 0.1, (200, 4))) for split, y in label.items()
    }
    labelled = np.flatnonzero(label["train"] != 2)[:60]
    probability = fit_probe(vectors, label, labelled)
    assert probability.shape == (200, 4)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert not probability[:, 2].any()  # no labelled clip has this class
    known = label["test"] != 2
    assert (probability.argmax(axis=1) == label["test"])[known].all()


def test_log_mel_statistics_equal_those_of_librosa() -> None:
    signal = 0.1 * np.random.default_rng(0).standard_normal(16000)
    power = librosa.feature.melspectrogram(
        y=signal, sr=16000, n_fft=400, hop_length=160, center=False, n_mels=64, htk=True, norm=None,
        window=np.hanning(400),
    )  # fmt: skip
    log = np.log(power + 1e-6)
    expected = np.concatenate((log.mean(axis=1), log.std(axis=1)))
    np.testing.assert_allclose(log_mel_statistics(signal), expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(log_mel_statistics(np.zeros(10))).all()
