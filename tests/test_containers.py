"""Every container and encoding: full length, excerpts, and ends that are missing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from kit import make_clip
from sweeps import encoded, heard, sweep

from featreg.datasets.audio.check import fault
from featreg.datasets.base import ClipError
from featreg.extract.pipeline.decode import length_s

# Raw samples have no header, and SD2 has a second file.
FORMATS = sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})
ENCODINGS = [
    (format, subtype)
    for format in FORMATS
    for subtype in soundfile.available_subtypes(format)
    if not subtype.startswith("ALAC")
]

# Excerpts of what is in use: container, encoding, rate.
IN_USE = [
    ("WAV", "PCM_16", 44100),
    ("WAV", "FLOAT", 48000),
    ("WAV", "IMA_ADPCM", 22050),
    ("WAV", "MS_ADPCM", 16000),
    ("WAV", "GSM610", 8000),
    ("AIFF", "PCM_24", 44100),
    ("AU", "G721_32", 8000),
    ("FLAC", "PCM_16", 44100),
    ("OGG", "VORBIS", 44100),
    ("OGG", "OPUS", 48000),
    ("MP3", "MPEG_LAYER_III", 44100),
    ("MP3", "MPEG_LAYER_III", 16000),
    ("RF64", "PCM_16", 48000),
    ("W64", "PCM_16", 48000),
]

# Containers whose headers say how long they are.
SIZED = "AIFF AU AVR CAF HTK MAT4 MAT5 MPC2K NIST RF64 SDS SVX VOC W64 WAV WAVEX WVE".split()  # noqa: SIM905


@pytest.mark.parametrize(("format", "subtype"), ENCODINGS)
def test_every_encoding_is_decoded_to_its_full_length(
    tmp_path: Path, format: str, subtype: str
) -> None:
    rate = 8000 if format == "WVE" else 16000
    samples = sweep(1.0, rate)
    try:
        data = encoded(format, subtype, samples, rate)
    except (soundfile.LibsndfileError, ValueError):
        pytest.skip("libsndfile reads it, and does not write it")
    signal = heard(tmp_path / "a", data)
    # Some fill up a last block: of GSM 320 samples, of ADPCM at most 1,017.
    block = 320 if "GSM" in subtype else 1018
    assert len(samples) <= len(signal) < len(samples) + block
    difference = np.abs(signal[: len(samples)] - samples[:, 0])
    assert np.median(difference) < (0.15 if "GSM" in subtype else 0.05)
    rate = soundfile.info(tmp_path / "a").samplerate  # XI has none, and VOC rounds it
    rest = heard(tmp_path / "a", data, 0.25)
    np.testing.assert_array_equal(rest, signal[round(0.25 * rate) :])


def check_excerpts(folder: Path, case: tuple[str, str, int], clips: int, starts: int) -> None:
    format, subtype, rate = case
    rng = np.random.default_rng(0)
    for clip in range(clips):
        seconds = rng.uniform(2, 8)
        channels = 1 if subtype in ("GSM610", "G721_32") else 1 + clip % 2
        data = encoded(format, subtype, sweep(seconds, rate, channels, clip), rate)
        whole = heard(folder / "a", data)
        late = seconds - rng.uniform(0.03, 0.6, starts // 2)  # where Vorbis has its last page
        for start_s in [*rng.uniform(0, seconds - 0.03, starts - len(late)), *late]:
            duration_s = rng.choice([None, 0.5])
            stop = None if duration_s is None else round(start_s * rate) + round(0.5 * rate)
            part = heard(folder / "a", data, start_s, duration_s)
            np.testing.assert_array_equal(part, whole[round(start_s * rate) : stop])


@pytest.mark.parametrize("case", IN_USE, ids=lambda case: "-".join(map(str, case)))
def test_an_excerpt_equals_the_slice_of_the_whole(
    tmp_path: Path, case: tuple[str, str, int]
) -> None:
    check_excerpts(tmp_path, case, clips=2, starts=6)


@pytest.mark.slow
@pytest.mark.parametrize("case", IN_USE, ids=lambda case: "-".join(map(str, case)))
def test_excerpts_of_many_clips_equal_slices(tmp_path: Path, case: tuple[str, str, int]) -> None:
    check_excerpts(tmp_path, case, clips=20, starts=40)


@pytest.mark.parametrize("format", SIZED)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_shorter_than_its_header_says_is_named(
    tmp_path: Path, format: str, channels: int
) -> None:
    if channels == 2 and format in ("HTK", "SDS", "SVX", "WVE"):
        pytest.skip("always mono")
    rate = 8000 if format == "WVE" else 16000
    data = encoded(
        format, "ALAW" if format == "WVE" else "PCM_16", sweep(2.0, rate, channels), rate
    )
    assert len(heard(tmp_path / "a", data)) == 2 * rate
    for part in (0.5, 0.95):
        with pytest.raises(ClipError, match=r"a (breaks off|cannot be decoded)"):
            heard(tmp_path / "a", data[: round(part * len(data))])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_type_of_a_matlab_file_that_was_cut_is_named(tmp_path: Path, subtype: str) -> None:
    data = encoded("MAT5", subtype)
    with pytest.raises(ClipError, match="breaks off"):
        heard(tmp_path / "a", data[: round(0.8 * len(data))])


def test_an_aiff_of_fewer_samples_than_it_counts_is_named(tmp_path: Path) -> None:
    data = bytearray(encoded("AIFF"))
    offset = data.index(b"SSND") + 8  # of the samples behind the header of their chunk
    data[offset : offset + 4] = (7424).to_bytes(4, "big")
    with pytest.raises(ClipError, match="breaks off"):
        heard(tmp_path / "a", bytes(data))


@pytest.mark.parametrize(
    ("format", "at", "value"),
    [
        ("AU", 8, (50_000).to_bytes(4, "big")),  # bytes of samples
        ("SDS", 10, bytes((0, 60, 0))),  # samples
        ("SDS", 30, b"\x55"),  # a sample in a block with a checksum
        ("AIFF", 4, (100_000).to_bytes(4, "big")),  # bytes of all
    ],
)
def test_a_header_that_contradicts_the_file_is_named(
    tmp_path: Path, format: str, at: int, value: bytes
) -> None:
    data = encoded(format, "PCM_16")
    heard(tmp_path / "a", data)
    with pytest.raises(ClipError, match=r"damaged|breaks off|wrong checksum"):
        heard(tmp_path / "a", data[:at] + value + data[at + len(value) :])


@pytest.mark.parametrize("size", [0, 20_000])
def test_big_endian_wav_is_checked_as_little_endian(tmp_path: Path, size: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, sweep(), 16000, format="WAV", subtype="PCM_16", endian="BIG")
    data = bytearray(file.getvalue())
    whole = heard(tmp_path / "a.wav", bytes(data))
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "big")
    if size:
        with pytest.raises(ClipError, match="20000 bytes of samples"):
            heard(tmp_path / "a.wav", bytes(data))
    else:
        np.testing.assert_array_equal(heard(tmp_path / "a.wav", bytes(data)), whole)


def test_gsm_has_no_block_of_a_padding_byte(tmp_path: Path) -> None:
    # 25 blocks of 65 bytes: an odd size, which a byte makes even.
    samples = sweep(1.0, 8000)
    signal = heard(tmp_path / "a", encoded("WAV", "GSM610", samples, 8000))
    assert len(signal) == 8000
    np.testing.assert_array_equal(
        heard(tmp_path / "a", (tmp_path / "a").read_bytes(), 0.9), signal[7200:]
    )


def test_alac_that_libsndfile_decodes_wrongly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"ALAC.*convert it to FLAC"):
        heard(tmp_path / "a.caf", encoded("CAF", "ALAC_24"))


@pytest.mark.parametrize(("bits", "words"), [(1, "1 bits"), (3, "3 bits"), (17, "17 bits")])
def test_bits_that_do_not_give_the_size_of_a_sample_are_named(
    tmp_path: Path, bits: int, words: str
) -> None:
    data = bytearray(encoded("WAV"))
    data[34:36] = bits.to_bytes(2, "little")
    with pytest.raises(ClipError, match=words):
        heard(tmp_path / "a.wav", bytes(data))


@pytest.mark.parametrize("riff", [0, 8, 36, 0xFFFFFFFF])
def test_half_of_the_samples_are_not_taken_for_all(tmp_path: Path, riff: int) -> None:
    data = bytearray(encoded("WAV"))
    size = len(data) - 44
    data[4:8], data[40:44] = riff.to_bytes(4, "little"), (size // 2).to_bytes(4, "little")
    with pytest.raises(ClipError, match=rf"{size // 2} bytes after the {size // 2} bytes"):
        heard(tmp_path / "a.wav", bytes(data))


@pytest.mark.parametrize("first", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("second", ["WAV", "FLAC", "OGG", "MP3"])
def test_another_format_that_follows_is_named(tmp_path: Path, first: str, second: str) -> None:
    if first == second != "WAV":
        pytest.skip("one stream, tested with its format")
    with pytest.raises(ClipError, match=rf"(?i){second}"):
        heard(tmp_path / "a", encoded(first) + encoded(second))


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("riff", [0, 8, 36, None])
def test_a_header_that_was_not_finished_means_to_the_end(
    tmp_path: Path, format: str, riff: int | None
) -> None:
    data = encoded(format)
    whole = heard(tmp_path / "a.wav", data)
    unfinished = bytearray(data)
    if format == "RF64":
        unfinished[20:44] = bytes(24)
    else:
        at = data.index(b"data") + 4
        unfinished[at : at + 4] = bytes(4)
        if riff is not None:
            unfinished[4:8] = riff.to_bytes(4, "little")
    path = tmp_path / "b.wav"
    np.testing.assert_array_equal(heard(path, bytes(unfinished)), whole)
    np.testing.assert_array_equal(heard(path, bytes(unfinished), 1.0, 0.5), whole[16000:24000])
    assert length_s(make_clip(path)) == 2.0
    assert fault(make_clip(path)) == ""


def test_what_follows_the_samples_of_a_wav_must_be_chunks(tmp_path: Path) -> None:
    data = encoded("WAV")
    whole = heard(tmp_path / "a.wav", data)
    for tail in (b"LIST\x04\0\0\0INFO", bytes(512), b"TAG".ljust(128)):
        np.testing.assert_array_equal(heard(tmp_path / "a.wav", data + tail), whole)
    damaged = bytearray(data)
    damaged[41] ^= 0x80  # of the size of the samples
    with pytest.raises(ClipError, match=r"a\.wav has \d+ bytes after the \d+ bytes of samples"):
        heard(tmp_path / "a.wav", bytes(damaged))


@pytest.mark.parametrize(
    ("rate", "channels", "words"),
    [
        (1, 1, "1 Hz, expected 1000"),
        (999, 1, "999 Hz"),
        (900_000, 1, "900000 Hz"),
        (16000, 300, "300"),
    ],
)
def test_rates_and_channels_have_bounds(
    tmp_path: Path, rate: int, channels: int, words: str
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((4000, channels)), rate)
    with pytest.raises(ClipError, match=words):
        heard(path, path.read_bytes())
    assert words.split()[0] in fault(make_clip(path))
    assert length_s(make_clip(path)) is None


def test_the_length_of_a_clip_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featreg.datasets.audio.decode.LONGEST", 20_000)
    with pytest.raises(ClipError, match=r"more than 20000 samples.*start_s"):
        heard(tmp_path / "a.wav", encoded("WAV"))
    assert len(heard(tmp_path / "a.wav", encoded("WAV"), 0.5, 1.0)) == 16000


def test_what_is_no_audio_is_told_apart(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 40
    with pytest.raises(ClipError, match=r"a\.mp3 is a web page"):
        heard(tmp_path / "a.mp3", page)
    with pytest.raises(ClipError, match=r"a\.wav cannot be decoded as audio"):
        heard(tmp_path / "a.wav", b"no audio at all " * 40)
    with pytest.raises(ClipError, match=r"a\.wav lasts 2\.000 s.*start_s 7"):
        heard(tmp_path / "a.wav", encoded("WAV"), 7.0)
    with pytest.raises(ClipError, match=r"nothing is left at start_s 1e\+308"):
        heard(tmp_path / "a.wav", encoded("WAV"), 1e308)
    assert len(heard(tmp_path / "a.wav", encoded("WAV"), 0.0, 1e308)) == 32000
