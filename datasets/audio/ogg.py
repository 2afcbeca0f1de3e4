"""Ogg files: every page checked, and every stream of a chain found.

A file is a sequence of pages (RFC 3533), each with a header of 27 bytes::

    "OggS", version, flags (2: first page of a stream, 4: last), granule position (8 bytes),
    serial number (4), sequence number (4), CRC-32 (4), number of segments (1)

and the sizes of its segments, a byte each. libsndfile checks little of this: it skips pages that
are damaged or missing, and ends at the end of the first stream.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..base import ClipError
from .stream import SndfileStream, Stream, chain

_FIRST, _LAST = 2, 4
_ONES = 0xFFFFFFFF

# Ogg's CRC has zlib's polynomial, but takes each byte from its highest bit on, and starts from 0.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class MultiplexedError(ClipError):
    """Several streams at the same time, as in a video."""


@dataclass(slots=True)
class _Logical:
    """The stream that pages are read of."""

    begin: int
    serial: bytes
    rate: int
    pages: int = 0
    granule: int = 0
    ended: bool = False

    @property
    def seconds(self) -> float:
        return self.granule / self.rate


def open_ogg(path: Path) -> Stream:
    """The audio of an Ogg file, all streams of a chain.

    Samples are found by decoding from the start of a stream, so that an excerpt equals the same
    samples of the whole.

    Raises
    ------
    ClipError
        If a page is damaged or missing, the end is missing, or (`MultiplexedError`) the file
        holds several streams at the same time.
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
    streams: list[_Logical] = []
    position = 0
    while data.startswith(b"OggS", position):
        now = streams[-1] if streams else None
        end = _page_end(data, position)
        if end > len(data):
            raise _breaks_off(path, streams)
        if not _intact(mirrored, position, end):
            raise _fault(path, streams, f"the page at byte {position} has a wrong checksum")
        flags, serial = data[position + 5], data[position + 14 : position + 18]
        if flags & _FIRST:
            if now is not None and not now.ended:
                if now.pages > 1:
                    raise _breaks_off(path, streams)
                raise MultiplexedError(
                    "decode", f"{path} holds several streams at the same time (a video?)"
                )
            now = _Logical(position, serial, _rate(data[position:end]))
            streams.append(now)
        elif now is None or serial != now.serial or now.ended:
            raise _fault(path, streams, f"the page at byte {position} belongs to no stream")
        number = int.from_bytes(data[position + 18 : position + 22], "little")
        if number != now.pages:
            raise _fault(path, streams, f"page {now.pages} is missing, page {number} follows")
        granule = int.from_bytes(data[position + 6 : position + 14], "little", signed=True)
        now.granule = max(now.granule, granule)
        now.pages += 1
        now.ended = bool(flags & _LAST)
        position = end
    if data.find(b"OggS", position) >= 0:
        raise _fault(path, streams, f"there is no page at byte {position}, where one should be")
    if not streams or not streams[-1].ended:
        raise _breaks_off(path, streams)
    borders = [*(stream.begin for stream in streams), position]
    return [data[a:b] for a, b in pairwise(borders)]


def _page_end(data: bytes, position: int) -> int:
    count = data[position + 26] if position + 26 < len(data) else 0
    return position + 27 + count + sum(data[position + 27 : position + 27 + count])


def _intact(mirrored: bytes, begin: int, end: int) -> bool:
    """Whether a page has the checksum that it states (taken with zeros in the place of it)."""
    crc = zlib.crc32(mirrored[begin : begin + 22], _ONES)
    crc = zlib.crc32(mirrored[begin + 26 : end], zlib.crc32(bytes(4), crc)) ^ _ONES
    return crc == int.from_bytes(mirrored[begin + 22 : begin + 26], "big")


def _rate(page: bytes) -> int:
    """Granule positions in a second, as a stream's first page says."""
    packet = page[27 + page[26] :]
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little") or 1
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30], "big") >> 4 or 1
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little") or 1
    return 48000  # of Opus always


def _second(streams: list[_Logical]) -> float:
    return sum(stream.seconds for stream in streams)


def _fault(path: Path, streams: list[_Logical], what: str) -> ClipError:
    return ClipError("decode", f"{path} is damaged after {_second(streams):.2f} s: {what}")


def _breaks_off(path: Path, streams: list[_Logical]) -> ClipError:
    return ClipError(
        "decode", f"{path} breaks off after {_second(streams):.2f} s: its end is missing"
    )
