"""Ogg files: chains are read whole, damaged and missing pages are named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from kit import make_clip
from sweeps import encoded, heard, sweep

from featreg.datasets.audio.check import fault
from featreg.datasets.base import ClipError
from featreg.extract.pipeline.decode import length_s

RATE = {"VORBIS": 16000, "OPUS": 48000}
SUBTYPES = sorted(RATE)


@pytest.fixture(scope="module", params=SUBTYPES)
def ogg(request: pytest.FixtureRequest) -> bytes:
    rate = RATE[request.param]
    return encoded("OGG", request.param, sweep(3.0, rate), rate)


def pages(data: bytes) -> list[int]:
    """Where each page begins."""
    found, position = [], 0
    while position < len(data):
        found.append(position)
        count = data[position + 26]
        position += 27 + count + sum(data[position + 27 : position + 27 + count])
    assert position == len(data)
    return found


def test_a_chain_is_all_of_its_streams(ogg: bytes, tmp_path: Path) -> None:
    once = heard(tmp_path / "a.ogg", ogg)
    path = tmp_path / "aaa.ogg"
    np.testing.assert_array_equal(heard(path, ogg * 3), np.tile(once, 3))
    rate = len(once) // 3
    part = heard(path, ogg * 3, 2.9, 3.3)
    np.testing.assert_array_equal(part, np.tile(once, 3)[round(2.9 * rate) : round(6.2 * rate)])
    assert length_s(make_clip(path)) == pytest.approx(9.0)
    assert fault(make_clip(path)) == ""


def test_streams_of_a_chain_may_differ_in_channels_and_coding(tmp_path: Path) -> None:
    mono = encoded("OGG", "OPUS", sweep(1.0, 48000), 48000)
    stereo = encoded("OGG", "VORBIS", sweep(1.0, 48000, 2), 48000)
    expected = [heard(tmp_path / "a.ogg", data) for data in (mono, stereo)]
    both = heard(tmp_path / "b.ogg", mono + stereo)
    np.testing.assert_array_equal(both, np.concatenate(expected))


def test_streams_of_a_chain_must_not_differ_in_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    with pytest.raises(ClipError, match=r"a\.ogg .*8000 Hz, stream 2 of 2 has 16000 Hz"):
        heard(path, encoded("OGG", rate=8000) + encoded("OGG", rate=16000))
    assert length_s(make_clip(path)) is None


def test_a_missing_page_is_named_with_its_second(ogg: bytes, tmp_path: Path) -> None:
    borders = [*pages(ogg), len(ogg)]
    for k in range(1, len(borders) - 2):
        with pytest.raises(ClipError, match=rf"a\.ogg is damaged after .* page {k} is missing"):
            heard(tmp_path / "a.ogg", ogg[: borders[k]] + ogg[borders[k + 1] :])


def test_a_file_without_its_last_page_breaks_off(ogg: bytes, tmp_path: Path) -> None:
    last = pages(ogg)[-1]
    for cut in (last, last + 5, last + 27, len(ogg) - 1):
        with pytest.raises(ClipError, match=r"a\.ogg breaks off after [0-3]\.\d\d s"):
            heard(tmp_path / "a.ogg", ogg[:cut])
        with pytest.raises(ClipError, match=r"a\.ogg"):  # nor with another one behind it
            heard(tmp_path / "a.ogg", ogg[:cut] + ogg)


def test_a_flipped_bit_is_named(ogg: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(ogg), 60, replace=False):
        data = bytearray(ogg)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ClipError, match=r"a\.ogg"):
            heard(tmp_path / "a.ogg", bytes(data))


def test_what_follows_the_last_page_is_no_audio(ogg: bytes, tmp_path: Path) -> None:
    expected = heard(tmp_path / "a.ogg", ogg)
    np.testing.assert_array_equal(heard(tmp_path / "b.ogg", ogg + b"TAG".ljust(128)), expected)


def multiplexed(first: bytes, other: bytes) -> bytes:
    """Two streams at the same time, as sound and pictures of a video."""
    a, b = pages(first)[1], pages(other)[1]
    return first[:a] + other[:b] + first[a:] + other[b:]


def test_streams_at_the_same_time_need_another_decoder(
    ogg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = multiplexed(ogg, encoded("OGG", "VORBIS", sweep(1.0, 16000, seed=1)))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ClipError, match=r"a\.ogg is Ogg with several streams.*pip install"):
        heard(tmp_path / "a.ogg", data)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(ClipError, match=r"a\.ogg is damaged after .* wrong checksum"):
        heard(tmp_path / "a.ogg", bytes(damaged))
    with pytest.raises(ClipError, match=r"a\.ogg breaks off"):
        heard(tmp_path / "a.ogg", data[: pages(data)[-1]])
