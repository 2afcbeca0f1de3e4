"""Every sample of an mp3 is decoded, whatever its headers say of its length."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from kit import make_clip, tone, write

from featreg.datasets.audio import mp3
from featreg.datasets.audio.check import fault
from featreg.datasets.audio.decode import decode
from featreg.datasets.audio.files import open_audio
from featreg.datasets.base import ClipError
from featreg.extract.pipeline.decode import length_s

RATE = 44100
LOUD, LEAN = 0.0, 0.9  # soundfile's compression levels: 320 and 64 kbit/s


def encoded(level: float, seconds: float = 4.0, rate: int = RATE, channels: int = 1) -> bytes:
    """A constant bit rate; in front the frame that declares the length, if it has room for that."""
    file = io.BytesIO()
    options = {"compression_level": level, "bitrate_mode": "CONSTANT"}
    soundfile.write(file, tone(seconds, rate, channels), rate, format="MP3", **options)
    return file.getvalue()


def bare(data: bytes) -> bytes:
    """Without the frame that declares the length."""
    return data[only(data).begin :]


def only(data: bytes) -> mp3.Part:
    (part,) = mp3.parts(data)
    return part


def heard(folder: Path, data: bytes) -> np.ndarray:
    (folder / "a.mp3").write_bytes(data)
    return decode(make_clip(folder / "a.mp3"))[0]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
def test_frames_are_counted_at_every_rate(tmp_path: Path, rate: int, channels: int) -> None:
    for level in (LOUD, 0.5, LEAN):
        data = bare(encoded(level, 2.0, rate, channels))
        # What mpg123 finds where its guess from a constant rate reaches the end.
        expected, _ = soundfile.read(io.BytesIO(data))
        assert only(data).samples == len(expected) == len(heard(tmp_path, data))


@pytest.mark.parametrize("order", [(LOUD, LEAN), (LEAN, LOUD), (LOUD, LEAN, LOUD)])
def test_a_variable_rate_that_nothing_declares_is_heard_to_its_end(
    tmp_path: Path, order: tuple[float, ...]
) -> None:
    parts = [bare(encoded(level)) for level in order]
    signal = heard(tmp_path, b"".join(parts))
    alone = [soundfile.read(io.BytesIO(part), dtype="float32")[0] for part in parts]
    assert len(signal) == sum(map(len, alone))
    np.testing.assert_array_equal(signal[: len(alone[0])], alone[0])
    # At a joint two frames are heard that lean on what came before.
    tail = len(alone[-1]) - 3 * 1152
    np.testing.assert_allclose(signal[-tail:], alone[-1][-tail:], atol=1e-6)

    clip = make_clip(tmp_path / "a.mp3")
    seconds = len(signal) / RATE
    assert fault(clip) == ""
    assert length_s(clip) == pytest.approx(seconds, abs=1e-6)
    last, _ = decode(replace(clip, start_s=seconds - 0.5))
    np.testing.assert_allclose(last, signal[-len(last) :], atol=1e-6)
    assert "nothing is left" in fault(replace(clip, start_s=seconds + 0.1))


def test_appended_files_are_each_without_what_their_encoder_added(tmp_path: Path) -> None:
    first, second = encoded(LEAN), encoded(LEAN)
    tag = b"ID3\x03\x00\x00\x00\x00\x10\x00" + bytes(2048)
    signal = heard(tmp_path, tag + first + tag + second)
    alone = heard(tmp_path, first)
    assert len(alone) == 4 * RATE
    np.testing.assert_allclose(signal, np.concatenate([alone, alone]), atol=1e-6)


def test_a_tag_of_no_frames_still_says_what_the_encoder_added(tmp_path: Path) -> None:
    data = bytearray(encoded(LEAN))
    expected = heard(tmp_path, bytes(data))
    at = data.index(b"Info") + 8
    data[at : at + 4] = bytes(4)
    at = data.index(b"LAME") + 34
    data[at : at + 2] = bytes(2)  # no checksum
    np.testing.assert_allclose(heard(tmp_path, bytes(data)), expected, atol=1e-6)


def test_a_vbri_frame_is_no_sound(tmp_path: Path) -> None:
    data = encoded(LEAN)
    part = only(data)
    frame = bytearray(data[part.begin : part.begin + part.first_bytes])
    frame[4:] = bytes(len(frame) - 4)
    frame[36:40] = b"VBRI"
    frame[50:54] = part.frames.to_bytes(4, "big")
    signal = heard(tmp_path, bytes(frame) + bare(data))
    np.testing.assert_allclose(signal, heard(tmp_path, bare(data)), atol=1e-6)


@pytest.mark.parametrize("lacking", [3, 8, 70])
def test_frames_that_are_declared_must_be_there(tmp_path: Path, lacking: int) -> None:
    data = encoded(LEAN)
    part = only(data)
    assert part.declared is not None
    cut = data[: part.end - lacking * part.first_bytes - lacking]
    with pytest.raises(ClipError, match=rf"declares {part.declared} frames"):
        heard(tmp_path, cut)


@pytest.mark.parametrize("lacking", [1, 2])
def test_the_last_frames_must_be_there(tmp_path: Path, lacking: int) -> None:
    data = encoded(LEAN)
    part = only(data)
    with pytest.raises(ClipError, match=rf"{part.frames - lacking} are there"):
        heard(tmp_path, data[: part.end - (lacking - 1) * (part.first_bytes + 1) - 1])


def test_a_frame_in_the_middle_must_be_there(tmp_path: Path) -> None:
    data = bytearray(encoded(LEAN))
    head = data[only(bytes(data)).begin :][:2]
    data[data.index(head, len(data) // 2)] ^= 1
    with pytest.raises(ClipError, match="frames"):
        heard(tmp_path, bytes(data))


def test_a_frame_of_other_channels_is_named(tmp_path: Path) -> None:
    data = bytearray(encoded(LEAN))
    head = data[only(bytes(data)).begin :][:2]
    data[data.rindex(head) + 3] ^= 0x80  # mono is 11, joint stereo 01
    with pytest.raises(ClipError, match="mono and stereo"):
        heard(tmp_path, bytes(data))


@pytest.mark.parametrize("where", [7, 8, 13, 19, 124, 141, 150])
def test_a_damaged_tag_is_named(tmp_path: Path, where: int) -> None:
    data = bytearray(encoded(LEAN))
    data[data.index(b"Info") + where] ^= 4
    with pytest.raises(ClipError, match=r"a\.mp3.*wrong checksum"):
        heard(tmp_path, bytes(data))


def test_an_excerpt_at_a_low_bit_rate_has_what_came_before(tmp_path: Path) -> None:
    # Frames of 64 kbit/s lean on bytes of several frames before them.
    for data in (encoded(LEAN), bare(encoded(LEAN))):
        whole = heard(tmp_path, data)
        for start_s in np.random.default_rng(0).uniform(0, 3.5, 20):
            part, _ = decode(replace(make_clip(tmp_path / "a.mp3"), start_s=start_s))
            np.testing.assert_array_equal(part, whole[round(start_s * RATE) :])


def test_what_stands_behind_the_sound_is_no_sound(tmp_path: Path) -> None:
    data = bare(encoded(LEAN))
    expected = heard(tmp_path, data)
    noise = b"APETAGEX" + np.random.default_rng(0).bytes(200_000)
    for tail in (b"TAG".ljust(128), noise, bytes(5000), data[:100]):
        np.testing.assert_array_equal(heard(tmp_path, data + tail), expected)


def test_an_ordinary_file_is_heard_as_it_always_was(tmp_path: Path) -> None:
    for data in (encoded(LEAN), encoded(LOUD, channels=2)):
        assert only(data).declared == only(data).frames
        expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
        np.testing.assert_array_equal(heard(tmp_path, data), expected.mean(axis=1))
        assert len(expected) == 4 * RATE  # without the encoder's padding


def test_a_published_clip_keeps_its_samples(shared: Path) -> None:
    (path,) = (shared / "data" / "audio").glob("*.mp3")
    signal, rate = decode(make_clip(path))
    # soundfile seeks to sample 0 first, from where the decoder rounds in another way.
    np.testing.assert_allclose(signal, soundfile.read(path, dtype="float32")[0], atol=1e-6)
    samples = only(path.read_bytes()).samples
    assert (rate, len(signal), samples) == (16000, 465984, 465984)  # 809 frames


def test_a_rate_that_changes_is_refused(tmp_path: Path) -> None:
    data = bare(encoded(LEAN)) + bare(encoded(LEAN, rate=48000))
    with pytest.raises(ClipError, match=r"a\.mp3 changes its rate: .* 44100 Hz, .* 48000 Hz"):
        heard(tmp_path, data)


def test_what_has_no_frames_is_left_to_the_decoder() -> None:
    assert mp3.parts(b"") == []
    assert mp3.parts(b"ID3") == []
    assert mp3.parts(bytes(10_000)) == []
    assert mp3.parts(b"\xff\xfb\x00" * 1000) == []  # free format: the length is nowhere


def test_a_file_is_counted_once_for_all_clips_cut_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def count(data: bytes) -> list[mp3.Part]:
        counted.append(len(data))
        return parts(data)

    parts = mp3.parts
    monkeypatch.setattr(mp3, "parts", count)
    path = tmp_path / "long.mp3"
    for seconds in (2.0, 3.0):  # a file that changed is counted again
        write(path, tone(seconds, 16000), 16000)
        for _ in range(3):
            with open_audio(path) as stream:
                assert stream.samples == seconds * stream.rate
    assert len(counted) == 2
