"""Audio files opened: how long they truly are, and whether their end is missing."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import soundfile

from ..base import ClipError
from . import mp3

# What libsndfile says of a size in a header, and from where on that size says nothing:
# programs that write to a pipe cannot know it, and declare the largest there is.
_UNKNOWN_32 = (1 << 31) - (1 << 16)
_UNKNOWN_64 = 1 << 62
_SIZES = {
    "data": _UNKNOWN_32,  # WAV
    "SSND": _UNKNOWN_32,  # AIFF
    "BODY": _UNKNOWN_32,  # SVX
    "Data Size": _UNKNOWN_32,  # AU
    "Riff size": _UNKNOWN_64,  # RF64
    "riff": _UNKNOWN_64,  # W64
}
_SIZE = re.compile(rf"^ *({'|'.join(_SIZES)}) *: (\d+) \(should be (\d+)\)", re.MULTILINE)

_LONGEST_PAGE = 27 + 255 + 255 * 255  # of Ogg: header, sizes of its pieces, the pieces
_NO_END = re.compile(
    "lacks an end-of-stream bit|without an End-Of-Stream flag|eems to be a truncated file"
)


@contextmanager
def open_audio(path: Path) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """An audio file, and how many samples each of its channels holds.

    What goes wrong in reading it, as long as the block lasts, is named as well.

    Raises
    ------
    ClipError
        If the file is missing, empty, unreadable, or lacks its end.
    """
    try:
        if not path.is_file():
            raise ClipError("decode", f"no file {path}")
        if path.stat().st_size == 0:
            raise ClipError("decode", f"{path} is empty (0 bytes)")
        file, samples = _open(path)
        with file:
            _check_end(path, file, samples)
            yield file, samples
            _check_end(path, file, samples)  # some decoders see it only when they come there
    except OSError as error:
        raise ClipError("decode", f"{path} cannot be read: {error.strerror}") from None
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ClipError("decode", f"{path} cannot be decoded: {error}") from None


def _open(path: Path) -> tuple[soundfile.SoundFile, int]:
    try:
        file = soundfile.SoundFile(os.fsencode(path))  # a name need not be UTF-8
    except TypeError:  # soundfile asks for what no header says
        raise ClipError(
            "decode",
            f"{path} has no header that says rate, channels and format (.raw); expected a file "
            "that does, as WAV; convert it, with sox or ffmpeg",
        ) from None
    if file.format != "MP3":
        return file, len(file)
    about = path.stat()
    found = _mp3_contents(path, about.st_size, about.st_mtime_ns)
    if found is None or found.declared:
        return file, len(file)
    if found.samples <= len(file):
        return file, found.samples
    file.close()
    return soundfile.SoundFile(io.BytesIO(mp3.lengthened(path.read_bytes(), found))), found.samples


@lru_cache(maxsize=64)  # clips that are cut from one file come one after the other
def _mp3_contents(path: Path, size: int, changed_ns: int) -> mp3.Contents | None:
    return mp3.contents(path.read_bytes())


def _check_end(path: Path, file: soundfile.SoundFile, samples: int) -> None:
    """Refuse a file of which libsndfile has noted, so far, that its end is missing."""
    log = file.extra_info
    if (
        _NO_END.search(log)
        or any(int(there) < int(size) < _SIZES[name] for name, size, there in _SIZE.findall(log))
        or ("Junk after the last page" in log and _ends_in_a_page(path))
    ):
        lasts = samples / file.samplerate
        raise ClipError("decode", f"{path} breaks off after {lasts:.2f} s: its end is missing")


def _ends_in_a_page(path: Path) -> bool:
    """Whether an Ogg file ends in the midst of a page; what libsndfile calls junk may be a tag."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_PAGE))
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    pieces = page[26] if len(page) > 26 else 0
    return page.startswith(b"OggS") and len(page) < 27 + pieces + sum(page[27 : 27 + pieces])
