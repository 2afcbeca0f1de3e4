"""Unfinished WAV, RIFX and RF64 headers, and headers that contradict their file.

A file consists of ``RIFF``, a size, ``WAVE``, and chunks: four letters, a size, and that number of
bytes, plus one if it is odd. The samples are in the chunk ``data``. If a recorder loses power, or a
program writes to a pipe, the sizes are 0, and libsndfile finds no samples.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, Literal

from ..base import DecodeError
from .appended import check_appended

_Order = Literal["little", "big"]

_NAME = re.compile(rb"[ -~]{4}|\0{4}")  # some recorders append zeros
_UNKNOWN = 0xFFFFFFFF

# Number of bytes after the samples that are searched for another file.
_TAIL = 1 << 16


def repaired(path: Path) -> bytes | None:
    """Content of an unfinished file, with a header that extends to the end; None if not needed.

    Raises
    ------
    ClipError
        If the declared samples are followed by anything except chunks, or by another audio file;
        or if a bit of the sample rate, the number of channels or the sample size is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:] != b"WAVE":
            return None
        order: _Order = "big" if head[:4] == b"RIFX" else "little"
        position, declared = 12, 0
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], order)
            if chunk[:4] == b"fmt ":
                _check_format(path, file.read(16), order)
            elif chunk[:4] == b"ds64":
                declared = int.from_bytes(file.read(16)[8:], "little")
            elif chunk[:4] == b"data":
                break
            position += 8 + length + length % 2
            file.seek(position)
        else:
            return None
        begin = position + 8
        if head[:4] != b"RF64" or length != _UNKNOWN:
            declared = length
        end = begin + declared + declared % 2
        riff_end = 8 + int.from_bytes(head[4:8], order)
        file.seek(min(end, size))
        check_appended(path, file.read(_TAIL))
        ends_here = declared > 0 and end - declared % 2 <= riff_end <= end
        if ends_here or _chunks_follow(file, end, size, order):
            return None
    if declared:
        raise DecodeError(
            f"{path} has {size - begin - declared} bytes after the {declared} bytes of samples "
            "that its header declares, and they are no chunk: its header is damaged"
        )
    whole = path.read_bytes()
    name = b"RIFX" if order == "big" else b"RIFF"
    return name + whole[4 : begin - 4] + _UNKNOWN.to_bytes(4, "little") + whole[begin:]


def _chunks_follow(file: BinaryIO, position: int, size: int, order: _Order) -> bool:
    """Whether only chunks follow up to the end of the file, or nothing."""
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:], order)
        if not _NAME.match(chunk) or position + 8 + length > size:
            return False
        position += 8 + length + length % 2
    return True


def _check_format(path: Path, fields: bytes, order: _Order) -> None:
    """Raise an error if the format of uncompressed samples contradicts itself by one bit.

    The bytes per sample of all channels and per second repeat the other fields. Greater
    contradictions come from careless programs, and players use the fields checked here. A number
    of bits that is not a multiple of 8 must agree with the bytes per sample of all channels.
    """
    if len(fields) < 16:
        return
    tag, channels, rate, per_second, per_frame, bits = struct.unpack(
        "<HHIIHH" if order == "little" else ">HHIIHH", fields
    )
    width = -(-bits // 8)
    if tag not in (1, 3, 0xFFFE) or not (channels and per_frame and width):
        return
    if bits % 8 and per_frame != channels * width:
        raise DecodeError(
            f"{path} declares {bits} bits of {channels} channels, and {per_frame} bytes for a "
            f"sample of all, expected {channels * width}: its header is damaged"
        )
    for name, value, product, factor in (
        ("rate", rate, per_second, per_frame),
        ("number of channels", channels, per_frame, width),
        ("number of bits", 8 * width, 8 * per_frame, channels),
    ):
        expected, rest = divmod(product, factor)
        if not rest and (value ^ expected).bit_count() == 1:
            raise DecodeError(
                f"{path} declares a {name} of {value}, and sizes that belong to {expected}: its "
                "header is damaged"
            )
