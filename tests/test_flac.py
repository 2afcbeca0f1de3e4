"""FLAC files: read to their end, whatever length their header declares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit import make_clip
from sweeps import encoded, heard, sweep

from featreg.datasets.audio.check import fault
from featreg.datasets.base import ClipError
from featreg.extract.pipeline.decode import length_s


@pytest.fixture(scope="module")
def flac() -> bytes:
    return encoded("FLAC")


def declaring(flac: bytes, samples: int) -> bytes:
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = samples.to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("samples", [0, 1, 31_999])
def test_a_length_that_is_unknown_or_too_small_does_not_matter(
    flac: bytes, tmp_path: Path, samples: int
) -> None:
    path = tmp_path / "a.flac"
    whole = heard(path, flac)
    assert len(whole) == 32_000
    np.testing.assert_array_equal(heard(path, declaring(flac, samples)), whole)
    part = heard(path, declaring(flac, samples), 1.5, 0.25)
    np.testing.assert_array_equal(part, whole[24_000:28_000])
    rest = heard(path, declaring(flac, samples), 1.9, 9.0)
    np.testing.assert_array_equal(rest, whole[30_400:])
    if samples == 0:
        assert length_s(make_clip(path)) == 2.0
        assert fault(make_clip(path)) == ""


def test_a_length_that_is_too_great_is_named(flac: bytes, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"a\.flac breaks off: .* 2\.50 s, 2\.00 s"):
        heard(tmp_path / "a.flac", declaring(flac, 40_000))


@pytest.mark.parametrize("samples", [0, 32_000])
def test_a_missing_end_is_named(flac: bytes, tmp_path: Path, samples: int) -> None:
    for cut in (len(flac) // 2, len(flac) - 1):
        with pytest.raises(ClipError, match=r"a\.flac (breaks off|cannot be decoded)"):
            heard(tmp_path / "a.flac", declaring(flac, samples)[:cut])


def test_appended_files_are_read_too(flac: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    once = heard(path, flac)
    stereo = encoded("FLAC", samples=sweep(channels=2))
    for second in (flac, declaring(flac, 0), stereo):
        expected = np.concatenate([once, heard(path, second)])
        np.testing.assert_array_equal(heard(path, flac + second), expected)
        part = heard(path, flac + second, 1.5, 1.0)
        np.testing.assert_array_equal(part, expected[24_000:40_000])
    with pytest.raises(ClipError, match=r"a\.flac .*16000 Hz, stream 2 of 2 has 8000 Hz"):
        heard(path, flac + encoded("FLAC", rate=8000))


def test_tags_around_it_are_no_audio(flac: bytes, tmp_path: Path) -> None:
    whole = heard(tmp_path / "a.flac", flac)
    before = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)
    for data in (before + flac, flac + b"TAG".ljust(128)):
        np.testing.assert_array_equal(heard(tmp_path / "a.flac", data), whole)


def test_a_rate_that_its_frames_do_not_have_is_named(flac: bytes, tmp_path: Path) -> None:
    data = bytearray(flac)
    data[19] ^= 1  # of 16 Hz
    with pytest.raises(ClipError, match=r"a\.flac declares a rate of 16016 Hz.* 16000 Hz"):
        heard(tmp_path / "a.flac", bytes(data))
