"""One flipped bit in an audio file: the same samples, a named failure, or no checksum to tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sweeps import encoded, heard, sweep

from featreg.datasets.base import ClipError

# Container, encoding, rate, and the byte from which on there is no checksum: samples of WAV, and
# frames of mp3 (whose headers have none either, so that a damaged one changes the length).
FILES = [
    ("OGG", "VORBIS", 16000, None),
    ("OGG", "OPUS", 48000, None),
    ("FLAC", "PCM_16", 16000, None),
    ("WAV", "PCM_16", 16000, 44),
    ("MP3", "MPEG_LAYER_III", 16000, 0),
]


def check(path: Path, data: bytes, bits: list[int], unchecked: int | None) -> None:
    whole = heard(path, data)
    reasons: list[str] = []
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            signal = heard(path, bytes(damaged))
        except ClipError as error:
            reasons.append(error.reason)
            continue
        if unchecked is None or bit // 8 < unchecked:
            np.testing.assert_array_equal(signal, whole, err_msg=f"bit {bit}")
        elif path.name == "wav":
            assert np.count_nonzero(signal != whole) <= 1
        else:
            assert np.isfinite(signal).all()
    assert all(str(path) in reason for reason in reasons)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file[1])
def test_a_flipped_bit_changes_no_sample_unnoticed(
    tmp_path: Path, file: tuple[str, str, int, int | None]
) -> None:
    format, subtype, rate, unchecked = file
    data = encoded(format, subtype, sweep(1.0, rate), rate)
    bits = np.random.default_rng(0).choice(8 * len(data), 15, replace=False).tolist()
    check(tmp_path / format.lower(), data, [*range(0, 8 * 60, 13), *bits], unchecked)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file[1])
def test_flipped_bits_of_a_whole_header_and_at_200_positions(
    tmp_path: Path, file: tuple[str, str, int, int | None]
) -> None:
    format, subtype, rate, unchecked = file
    data = encoded(format, subtype, sweep(2.0, rate, 2), rate)
    bits = np.random.default_rng(1).choice(8 * len(data), 200, replace=False).tolist()
    check(tmp_path / format.lower(), data, [*range(8 * 60), *bits], unchecked)
