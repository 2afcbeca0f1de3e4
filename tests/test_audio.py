"""Decoding and resampling: what comes out, and what is refused with which words."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from kit import make_clip, make_kit, tone, write

from featreg.datasets.audio.check import fault
from featreg.datasets.audio.decode import decode, fingerprint, resample
from featreg.datasets.base import Clip, ClipError
from featreg.extract.pipeline.decode import DecodeOptions, decode_clip, length_s


def excerpt(path: Path, start_s: float, duration_s: float | None) -> Clip:
    nothing = np.empty(0, np.uint8)
    return Clip(path.stem, path, "train", nothing, nothing, start_s, duration_s)


def test_channels_are_averaged(tmp_path: Path) -> None:
    samples = tone(1.0, 16000, 8)
    signal, rate = decode(make_clip(write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")))
    assert rate == 16000
    # Means of float32: the order of summation is free.
    np.testing.assert_allclose(signal, samples.mean(axis=1), atol=1e-7)


def test_every_good_file_of_the_kit_decodes(tmp_path: Path) -> None:
    good, _ = make_kit(tmp_path)
    for name, path in good.items():
        signal, rate = decode(make_clip(path))
        info = soundfile.info(path)
        assert rate == info.samplerate
        # mp3 pads; everything else is exact.
        assert abs(len(signal) - info.frames) <= (0.1 * rate if name == "mp3" else 0)
        assert signal.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "no file"),
        ("zero-bytes", "is empty"),
        ("renamed-pdf", "cannot be decoded"),
        ("no-samples", "has no samples"),
        ("one-sample", "expected at least 25 ms"),
        ("nan", "not finite at 0.031 s"),
        ("inf", "not finite at 0.031 s"),
        ("truncated-wav", "breaks off after 3.00 s"),
        ("truncated-ogg", "its end is missing"),
        ("truncated-flac", "cannot be decoded"),
        ("truncated-mp3", "breaks off after 2.95 s"),
    ],
)
def test_every_bad_file_is_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    _, bad = make_kit(tmp_path)
    with pytest.raises(ClipError, match=words) as refused:
        decode(make_clip(bad[name]))
    assert bad[name].name in refused.value.reason
    assert refused.value.stage == "decode"


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("whole.wav", "PCM_16"),
        ("whole.wav", "FLOAT"),
        ("whole.aiff", "PCM_16"),
        ("whole.au", "PCM_16"),
        ("whole.rf64", "PCM_16"),
        ("whole.w64", "PCM_16"),
        ("whole.caf", "PCM_16"),
        ("whole.flac", "PCM_16"),
        ("whole.ogg", "VORBIS"),
        ("whole.ogg", "OPUS"),
        ("whole.mp3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_half_a_file_is_refused_whatever_the_container(
    tmp_path: Path, name: str, subtype: str, part: float
) -> None:
    path = write(tmp_path / name, tone(6.0, 48000), 48000, subtype=subtype)
    assert len(decode(make_clip(path))[0]) >= 6 * 48000
    whole = path.read_bytes()
    path.write_bytes(whole[: round(len(whole) * part)])
    with pytest.raises(ClipError, match=f"{name} (breaks off|cannot be decoded)"):
        decode(make_clip(path))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_ends_in_its_last_page_is_told_from_one_with_a_tag(
    tmp_path: Path, subtype: str
) -> None:
    path = write(tmp_path / "a.ogg", tone(1.0, 48000), 48000, subtype=subtype)
    whole = path.read_bytes()
    path.write_bytes(whole + b"TAG".ljust(128))
    assert len(decode(make_clip(path))[0]) == 48000
    last = whole.rindex(b"OggS")
    for cut in (last + 5, last + 27, last + 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ClipError, match=r"a\.ogg breaks off"):
            decode(make_clip(path))


def test_sizes_that_a_pipe_left_open_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    whole = path.read_bytes()
    at = whole.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFF000):
        path.write_bytes(whole[:at] + size.to_bytes(4, "little") + whole[at + 4 :])
        assert len(decode(make_clip(path))[0]) == 16000


def test_samples_without_a_header_are_refused_and_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(64000))
    expected = r"a\.raw has no header that gives rate, channels and format"
    with pytest.raises(ClipError, match=expected):
        decode(make_clip(path))
    assert re.search(expected, fault(make_clip(path)))
    assert length_s(make_clip(path)) is None


def test_a_named_pipe_is_no_file_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    clip = make_clip(tmp_path / "a.wav")
    assert fingerprint(clip) == ""
    heard = decode_clip(clip, DecodeOptions((16000,), "soxr_hq", keep_silent=False))
    assert isinstance(heard, ClipError)
    assert heard.reason == f"no file {clip.path}"


def test_what_is_no_file_or_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(ClipError, match=r"no file .*a\.wav"):
        decode(make_clip(tmp_path / "a.wav"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)  # as in a folder that may not be searched
    with pytest.raises(ClipError, match=r"a\.wav cannot be read: Permission denied"):
        decode(make_clip(tmp_path / "a.wav"))


def test_an_excerpt_is_those_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(3.0, 16000), 16000)
    whole, _ = decode(make_clip(path))
    part, _ = decode(excerpt(path, 1.25, 0.5))
    np.testing.assert_array_equal(part, whole[20000:28000])
    rest, _ = decode(excerpt(path, 2.5, 9.0))
    np.testing.assert_array_equal(rest, whole[40000:])
    with pytest.raises(ClipError, match=r"lasts 3\.000 s"):
        decode(excerpt(path, 3.5, None))


def test_resampling_keeps_a_tone_and_its_length() -> None:
    t = np.arange(44100) / 44100
    signal = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    heard = resample(signal, 44100, 16000)
    assert len(heard) == 16000
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    # Away from the edges, where the filter sees zeros: -80 dB is soxr's own promise here.
    np.testing.assert_allclose(heard[800:-800], expected[800:-800], atol=1e-4)
    assert resample(signal, 44100, 44100) is signal


def test_the_fingerprint_follows_content_and_excerpt_not_time_or_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(10.0, 16000), 16000)
    first = fingerprint(make_clip(path))
    os.utime(path, (0, 0))
    copy = tmp_path / "b" / "other.wav"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert fingerprint(make_clip(path)) == fingerprint(make_clip(copy)) == first
    assert fingerprint(excerpt(path, 1.0, None)) != first
    copy.write_bytes(path.read_bytes()[:-2])
    assert fingerprint(make_clip(copy)) != first
    assert fingerprint(make_clip(tmp_path / "nowhere.wav")) == ""


def test_a_name_in_another_unicode_normalization_is_pointed_out(tmp_path: Path) -> None:
    write(tmp_path / unicodedata.normalize("NFD", "café.wav"), tone(0.2, 16000), 16000)
    with pytest.raises(ClipError, match="NFC or NFD"):
        decode(make_clip(tmp_path / unicodedata.normalize("NFC", "café.wav")))
    with pytest.raises(ClipError, match="no file") as error:
        decode(make_clip(tmp_path / "cafe.wav"))
    assert "NFD" not in str(error.value)
