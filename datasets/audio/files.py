"""Opening of audio files by their container, with an error if the end of the file is missing.

For most containers, libsndfile's log states whether the file is as long as its header declares.
PAF, PVF, IRCAM and XI headers declare no length that could be checked, nor does an mp3 without a
Xing or VBRI frame: such a truncated file is decoded up to its end.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soundfile

from ..base import DecodeError
from . import pyav
from .flac import open_flac
from .mp3 import open_mp3
from .ogg import MultiplexedError, open_ogg
from .stream import SndfileStream, Stream
from .wav_header import repaired

# Names of sizes in libsndfile's log, and the value from which on a size is unknown: programs that
# write to a pipe declare the largest possible size.
_UNKNOWN_32 = (1 << 31) - (1 << 16)
_UNKNOWN_64 = 1 << 62
_SIZES = {
    "data": _UNKNOWN_32,  # WAV
    "SSND": _UNKNOWN_32,  # AIFF
    "FORM": _UNKNOWN_32,  # AIFF and SVX, all that follows
    "BODY": _UNKNOWN_32,  # SVX
    "Data Size": _UNKNOWN_32,  # AU
    "Riff size": _UNKNOWN_64,  # RF64
    "riff": _UNKNOWN_64,  # W64
    "Data length": _UNKNOWN_32,  # WVE
}
_SIZE = re.compile(rf"^ *({'|'.join(_SIZES)}) *:? (\d+) \(?should be (\d+)", re.MULTILINE)
_CUT = re.compile("eems to be a truncated file|File seems to be truncated")

# Samples per channel, or bytes, that a header declares (for SDS: that the file contains).
_FRAMES = re.compile(r"^ *Frames *: (\d+)", re.MULTILINE)
_SDS_BLOCK = re.compile(r"^Samples/Block *: (\d+)", re.MULTILINE)
_SDS_CHECKSUM = re.compile(r"^(Block \d+) : checksum is", re.MULTILINE)
_AU = re.compile(r"Data Offset : (\d+)\s+Data Size +: (\d+)\n")
_MAT5_BYTES = re.compile(r"Type : (\d+) +Size : (\d+)\nData type")
_MAT5_WIDTHS = {2: 1, 3: 2, 5: 4, 7: 4, 9: 8}  # bytes of a sample by type
_WAV_BYTES = re.compile(r"^data : (\d+)$", re.MULTILINE)
# AIFF declares its length twice; libsndfile believes the size of the samples.
_AIFF_FRAMES = re.compile(r"'COMM' chunk \((\d+)\) not equal")
_NIST_SAMPLES = re.compile(rb"sample_count -i (\d+)")


def other_normalization(path: Path) -> str:
    """Note for a missing file whose name exists in another Unicode normalization form.

    Such names look identical: macOS decomposes accents (NFD), other systems do not (NFC).
    """
    wanted = unicodedata.normalize("NFC", path.name)
    try:
        names = [name for name in os.listdir(path.parent) if name != path.name]
    except OSError:
        return ""
    if wanted in (unicodedata.normalize("NFC", name) for name in names):
        return "; a file has this name in another Unicode form (NFC or NFD): rename it"
    return ""


@contextmanager
def open_audio(path: Path) -> Iterator[Stream]:
    """Open an audio file for reading in the block.

    Errors of libsndfile in the block become a `ClipError` that names the file.

    Raises
    ------
    ClipError
        If the file is missing, empty, unreadable, damaged or truncated, or its container or
        encoding is not supported.
    """
    try:
        if not path.is_file():
            raise DecodeError(f"no file {path}{other_normalization(path)}")
        if path.stat().st_size == 0:
            raise DecodeError(f"{path} is empty (0 bytes)")
        yield _open(path)
    except OSError as error:
        raise DecodeError(f"{path} cannot be read: {error.strerror}") from None
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"{path} cannot be decoded: {error.error_string}") from None
    except soundfile.SoundFileRuntimeError as error:
        raise DecodeError(f"{path} cannot be decoded: {error}") from None


def _open(path: Path) -> Stream:
    with path.open("rb") as start:
        head = start.read(64)
    if head.startswith(b"OggS"):
        try:
            return open_ogg(path)
        except MultiplexedError as error:
            return pyav.open_container(path, head, error.reason)
    try:
        file = soundfile.SoundFile(os.fsencode(path))  # a name need not be UTF-8
    except TypeError:  # soundfile requires the rate of files without a header
        raise DecodeError(
            f"{path} has no header that gives rate, channels and format (.raw); convert it to "
            "WAV with sox or ffmpeg"
        ) from None
    except soundfile.LibsndfileError as error:
        return pyav.open_container(path, head, error.error_string)
    with file:
        if file.format == "FLAC":
            return open_flac(path)
        if file.format == "MP3":
            return open_mp3(path)
        if contents := repaired(path):
            return SndfileStream(path, contents)
        if file.subtype.startswith("ALAC"):
            raise DecodeError(
                f"{path} holds ALAC in a CAF container, of which libsndfile decodes some packets "
                "to other samples; convert it to FLAC with ffmpeg"
            )
        _check_end(path, file)
        if file.subtype == "GSM610" and (size := _WAV_BYTES.search(file.extra_info)):
            # libsndfile decodes the padding byte after an odd size as another block.
            samples = int(size[1]) // 65 * 320
            if 0 < samples < file.frames:
                return SndfileStream(path, path, samples, limited=True)
        return SndfileStream(path, path)


def _check_end(path: Path, file: soundfile.SoundFile) -> None:
    """Raise an error if the file is shorter than its header declares."""
    log = file.extra_info
    _check_contradictions(path, file, log)
    short = any(int(there) < int(size) < _SIZES[name] for name, size, there in _SIZE.findall(log))
    frames = int(file.frames)
    if file.format == "SDS" and (there := _FRAMES.search(log)):
        short, frames = int(there[1]) < frames, int(there[1])
    if short or _CUT.search(log) or frames < _declared(path, file, log):
        lasts = frames / file.samplerate
        raise DecodeError(f"{path} breaks off after {lasts:.2f} s: its end is missing")


def _check_contradictions(path: Path, file: soundfile.SoundFile, log: str) -> None:
    """Raise an error if the file contains more than its header declares, or a wrong checksum."""
    if file.format == "AU" and (sizes := _AU.search(log)):
        rest = path.stat().st_size - int(sizes[1]) - int(sizes[2])
        if rest > 0:
            raise DecodeError(
                f"{path} has {rest} bytes after the {sizes[2]} bytes of samples that its header "
                "declares: its header is damaged"
            )
    if file.format == "SDS":
        if wrong := _SDS_CHECKSUM.search(log):
            raise DecodeError(f"{path}: {wrong[1]} has a wrong checksum")
        there, block = _FRAMES.search(log), _SDS_BLOCK.search(log)
        if there and block and int(file.frames) <= int(there[1]) - int(block[1]):
            raise DecodeError(
                f"{path} has {there[1]} samples in its blocks, its header declares {file.frames}: "
                "its header is damaged"
            )


def _declared(path: Path, file: soundfile.SoundFile, log: str) -> int:
    """Declared number of samples, if libsndfile does not compare it with the file's size; or 0."""
    if file.format in ("AVR", "MPC2K") and (frames := _FRAMES.search(log)):
        return int(frames[1])
    if file.format == "MAT5" and (size := _MAT5_BYTES.search(log)):
        return int(size[2]) // (int(file.channels) * _MAT5_WIDTHS[int(size[1])])
    if file.format == "AIFF" and (frames := _AIFF_FRAMES.search(log)):
        return int(frames[1]) if int(frames[1]) < _UNKNOWN_32 else 0
    if file.format == "NIST":
        with path.open("rb") as start:
            if samples := _NIST_SAMPLES.search(start.read(1024)):
                return int(samples[1])
    return 0
