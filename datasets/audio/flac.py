"""FLAC files, read to their end even if the header declares fewer samples.

A file consists of ``fLaC``, the STREAMINFO block (4 + 34 bytes, with the number of samples in 36
bits, 0 if the encoder did not know it), other blocks, and frames with checksums. libsndfile reads
no more samples than are declared, and ignores a second file after the first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..base import DecodeError
from .appended import check_appended
from .stream import Block, SndfileStream, Stream, chain

# The marker and the header of a STREAMINFO block: 63 bits that do not occur by chance.
_BEGIN = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")


# Sample rates in Hz by the 4-bit code in a frame's header, from 1 on.
_RATES = (88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


class _Link(NamedTuple):
    begin: int
    end: int
    samples: int | None


def open_flac(path: Path) -> Stream:
    """Open a FLAC file, including other FLAC files appended to it.

    Raises
    ------
    ClipError
        If their sample rates differ, or those of a header and its frames, or a file of another
        format is appended. (Damaged or missing frames are found when they are read.)
    """
    about = path.stat()
    found = _links(path, about.st_size, about.st_mtime_ns)
    if not found:
        return SndfileStream(path, path)  # raises an error
    if len(found) == 1:
        return _FlacStream(path, found[0])
    data = path.read_bytes()
    return chain(path, [_to_end(path, data, link) for link in found])


@lru_cache(maxsize=64)  # consecutive clips are often excerpts of one file
def _links(path: Path, size: int, changed_ns: int) -> list[_Link]:
    data = path.read_bytes()
    check_appended(path, data, "FLAC")
    begins = [match.start() for match in _BEGIN.finditer(data)]
    found = []
    for begin, end in zip(begins, [*begins[1:], len(data)], strict=True):
        samples = int.from_bytes(data[begin + 21 : begin + 26], "big") & (1 << 36) - 1
        _check_rate(path, data, begin)
        found.append(_Link(begin, end, samples or None))
    return found


def _check_rate(path: Path, data: bytes, begin: int) -> None:
    """Raise an error if the header, which has no checksum, has another rate than the frames."""
    declared = int.from_bytes(data[begin + 18 : begin + 21], "big") >> 4
    position, last = begin + 4, False
    while not last and position + 4 <= len(data):
        last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
    frame = data[position : position + 4]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xFC != 0xF8:
        return
    code = frame[2] & 0x0F
    if 1 <= code <= len(_RATES) and _RATES[code - 1] != declared:
        raise DecodeError(
            f"{path} declares a rate of {declared} Hz, its frames have {_RATES[code - 1]} Hz: "
            "its header is damaged"
        )


def _to_end(path: Path, data: bytes, link: _Link) -> SndfileStream:
    """A stream without a declared length, so that libsndfile reads all of it."""
    unknown = bytearray(data[link.begin : link.end])
    unknown[21] &= 0xF0
    unknown[22:26] = bytes(4)
    return SndfileStream(path, bytes(unknown), link.samples, lead=lambda _: 0)


class _FlacStream:
    """A FLAC file; seeks to excerpts within the declared length, and reads it all for others."""

    def __init__(self, path: Path, link: _Link) -> None:
        self._path, self._link = path, link
        self._excerpts = SndfileStream(path, path)
        self.rate, self.channels = self._excerpts.rate, self._excerpts.channels
        self.samples = link.samples

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `Stream`."""
        if stop is not None and stop <= (self.samples or 0):
            return self._excerpts.blocks(start, stop)
        return _to_end(self._path, self._path.read_bytes(), self._link).blocks(start, stop)
