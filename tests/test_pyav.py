"""What FFmpeg decodes, through PyAV: exact lengths, exact excerpts, named faults."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import make_clip
from sweeps import Samples, encoded, heard, sweep
from test_ogg import multiplexed

from featreg.datasets.base import ClipError
from featreg.extract.pipeline.decode import length_s

needs_av = pytest.mark.skipif(not importlib.util.find_spec("av"), reason="PyAV is not installed")

# Name, format, encoder, rate, whether it is lossless, whether there are pictures too.
FILES = [
    ("a.m4a", "ipod", "aac", 44100, False, False),
    ("alac.m4a", "ipod", "alac", 44100, True, False),
    ("a.mp4", "mp4", "aac", 48000, False, True),
    ("a.webm", "webm", "libopus", 48000, False, False),
    ("a.mka", "matroska", "flac", 16000, True, False),
    ("a.mkv", "matroska", "pcm_s16le", 16000, True, True),
    ("a.aac", "adts", "aac", 44100, False, False),
]


def record(path: Path, format: str, codec: str, samples: Samples, rate: int, video: bool) -> bytes:
    import av

    sound: Any
    with av.open(str(path), "w", format=format, options={"movflags": "faststart"}) as file:
        if video:
            picture: Any = file.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            picture.pix_fmt = "yuv420p"
        sound = file.add_stream(codec, rate=rate)
        sound.layout = "stereo" if samples.shape[1] == 2 else "mono"
        if video:
            for k in range(round(10 * len(samples) / rate)):
                image = av.VideoFrame(32, 32, "yuv420p")
                image.pts = k
                file.mux(picture.encode(image))
            file.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T), format="fltp", layout=sound.layout.name
        )
        frame.sample_rate, frame.pts = rate, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    return path.read_bytes()


@needs_av
@pytest.mark.parametrize("file", FILES, ids=lambda file: file[0])
def test_all_of_it_is_decoded_and_excerpts_are_slices(tmp_path: Path, file: Any) -> None:
    name, format, codec, rate, lossless, video = file
    samples = sweep(2.5, rate, 2)
    data = record(tmp_path / name, format, codec, samples, rate, video)
    signal = heard(tmp_path / name, data)
    if codec == "aac" and format == "adts":  # which does not say what the encoder added
        assert len(samples) + 1024 <= len(signal) <= len(samples) + 3 * 1024
        signal = signal[1024:]
    else:
        assert len(signal) == len(samples)
        assert length_s(make_clip(tmp_path / name)) == pytest.approx(2.5, abs=0.05)
    expected = samples.mean(axis=1)
    error = np.abs(signal[2000 : len(samples) - 2000] - expected[2000:-2000]).mean()
    assert error < (2e-5 if lossless else 0.02)
    whole = heard(tmp_path / name, data)
    for start_s in np.random.default_rng(0).uniform(0, 2.4, 5):
        start = round(start_s * rate)
        part = heard(tmp_path / name, data, start_s, 0.5)
        np.testing.assert_array_equal(part, whole[start : start + round(0.5 * rate)])


@needs_av
@pytest.mark.parametrize("file", FILES, ids=lambda file: file[0])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_part_of_it_is_refused(tmp_path: Path, file: Any, part: float) -> None:
    name, format, codec, rate, _, video = file
    data = record(tmp_path / name, format, codec, sweep(2.5, rate, 2), rate, video)
    with pytest.raises(ClipError, match=name):
        heard(tmp_path / name, data[: round(part * len(data))])


@needs_av
def test_an_ogg_of_two_streams_gives_its_first(tmp_path: Path) -> None:
    first = encoded("OGG", "VORBIS", sweep(2.0), 16000)
    other = encoded("OGG", "VORBIS", sweep(1.0, seed=1), 16000)
    data = multiplexed(first, other)
    signal = heard(tmp_path / "a.ogv", data)
    expected = heard(tmp_path / "a.ogg", first)
    np.testing.assert_allclose(signal[: len(expected)], expected, atol=1e-4)


@needs_av
def test_what_has_no_sound_is_named(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        picture: Any = file.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        file.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(picture.encode())
    with pytest.raises(ClipError, match=r"a\.mp4 has no audio stream"):
        heard(path, path.read_bytes())
    with pytest.raises(ClipError, match=r"a\.m4a cannot be decoded"):
        heard(tmp_path / "a.m4a", b"\0\0\0\x20ftypM4A " + bytes(4000))


def test_without_the_extra_its_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ClipError, match=r"a\.m4a is MPEG-4.*pip install '\.\[av\]'"):
        heard(tmp_path / "a.m4a", b"\0\0\0\x20ftypM4A " + bytes(4000))
    with pytest.raises(ClipError, match=r"a\.webm is Matroska or WebM.*pip install"):
        heard(tmp_path / "a.webm", b"\x1aE\xdf\xa3" + bytes(4000))
    with pytest.raises(ClipError, match=r"cannot be decoded"):
        heard(tmp_path / "a.dat", b"neither of them" * 100)
