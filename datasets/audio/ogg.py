"""Ogg files, with a check of every page, and all streams of a chain.

A file is a sequence of pages (RFC 3533), each with a header of 27 bytes::

    "OggS", version, flags (2: first page of a stream, 4: last), granule position (8 bytes),
    serial number (4), sequence number (4), CRC-32 (4), number of segments (1)

and the sizes of its segments, one byte each. libsndfile skips damaged or missing pages, and stops
at the end of the first stream.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..base import ClipError, DecodeError
from .appended import check_appended
from .stream import SndfileStream, Stream, chain

_FIRST, _LAST = 2, 4
_ONES = 0xFFFFFFFF

# Ogg's CRC has the polynomial of zlib's, but processes the highest bit first, and starts from 0.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class MultiplexedError(DecodeError):
    """The file contains several simultaneous streams, as a video does."""


@dataclass(slots=True)
class _Link:
    """A stream of a chain: its start, its sample rate, and the position reached so far."""

    begin: int
    serial: bytes
    rate: int
    granule: int = 0


def open_ogg(path: Path) -> Stream:
    """Open an Ogg file, including all streams of a chain.

    Each stream is decoded from its start, so that an excerpt equals the same samples of the
    whole file.

    Raises
    ------
    ClipError
        If a page is damaged or missing, the end is missing, a file of another format is appended,
        or (`MultiplexedError`) the file contains several simultaneous streams.
    """
    data = path.read_bytes()
    return chain(path, [SndfileStream(path, link) for link in links(path, data)])


def links(path: Path, data: bytes) -> list[bytes]:
    """The streams of a chain, each a complete Ogg file, in order.

    Raises
    ------
    ClipError
        As `open_ogg`.
    """
    mirrored = data.translate(_MIRRORED)
    found: list[_Link] = []
    expected: dict[bytes, int] = {}  # number of the next page of each stream that has not ended
    multiplexed = False
    position = 0
    while data.startswith(b"OggS", position):
        end = _page_end(data, position)
        if end > len(data):
            raise _breaks_off(path, found)
        if not _intact(mirrored, position, end):
            raise _fault(path, found, f"the page at byte {position} has a wrong checksum")
        flags, serial = data[position + 5], data[position + 14 : position + 18]
        if flags & _FIRST:
            if any(number > 1 for number in expected.values()):
                raise _breaks_off(path, found)
            if expected:
                multiplexed = True
            else:
                found.append(_Link(position, serial, _rate(data[position:end])))
            expected[serial] = 0
        elif serial not in expected:
            raise _fault(path, found, f"the page at byte {position} belongs to no stream")
        number = int.from_bytes(data[position + 18 : position + 22], "little")
        if number != expected[serial]:
            missing = expected[serial]
            raise _fault(path, found, f"page {missing} is missing, page {number} follows")
        expected[serial] += 1
        if serial == found[-1].serial:
            granule = int.from_bytes(data[position + 6 : position + 14], "little", signed=True)
            found[-1].granule = max(found[-1].granule, granule)
        if flags & _LAST:
            del expected[serial]
        position = end
    if data.find(b"OggS", position) >= 0:
        raise _fault(path, found, f"there is no page at byte {position}, where one should be")
    if expected or not found:
        raise _breaks_off(path, found)
    check_appended(path, data[position:])
    if multiplexed:
        raise MultiplexedError(f"{path} holds several streams at the same time (a video?)")
    return [data[a:b] for a, b in pairwise([*(link.begin for link in found), position])]


def _page_end(data: bytes, position: int) -> int:
    count = data[position + 26] if position + 26 < len(data) else 0
    return position + 27 + count + sum(data[position + 27 : position + 27 + count])


def _intact(mirrored: bytes, begin: int, end: int) -> bool:
    """Whether the checksum of a page is right; the field of the checksum counts as zeros."""
    crc = zlib.crc32(mirrored[begin : begin + 22], _ONES)
    crc = zlib.crc32(mirrored[begin + 26 : end], zlib.crc32(bytes(4), crc)) ^ _ONES
    return crc == int.from_bytes(mirrored[begin + 22 : begin + 26], "big")


def _rate(page: bytes) -> int:
    """Granule positions per second, from the first page of a stream."""
    packet = page[27 + page[26] :]
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little") or 1
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30], "big") >> 4 or 1
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little") or 1
    return 48000  # Opus


def _second(found: list[_Link]) -> float:
    return sum(link.granule / link.rate for link in found)


def _fault(path: Path, found: list[_Link], what: str) -> ClipError:
    return DecodeError(f"{path} is damaged after {_second(found):.2f} s: {what}")


def _breaks_off(path: Path, found: list[_Link]) -> ClipError:
    return DecodeError(f"{path} breaks off after {_second(found):.2f} s: its end is missing")
