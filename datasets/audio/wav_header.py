"""WAV, RIFX and RF64 headers that a recorder did not finish, or that contradict their file.

A file is ``RIFF``, a size and ``WAVE``, and then chunks: four letters, a size, and as many bytes
(one more if that is odd). The samples are in ``data``. A recorder that lost power, and a program
that writes to a pipe, leave the sizes at 0, and libsndfile then finds no samples.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, Literal

from ..base import ClipError
from .appended import check_appended

_Order = Literal["little", "big"]

_NAME = re.compile(rb"[ -~]{4}|\0{4}")  # some recorders fill up with zeros
_UNKNOWN = 0xFFFFFFFF

# Bytes in which a second file begins, if there is one.
_TAIL = 1 << 16


def repaired(path: Path) -> bytes | None:
    """The contents of a file with a header that says "to the end"; None if its own will do.

    Raises
    ------
    ClipError
        If the file goes on after the samples that it declares, but not with a chunk, or with
        another audio file; or if a bit of its rate, channels or sample size is wrong.
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
        raise ClipError(
            "decode",
            f"{path} has {size - begin - declared} bytes after the {declared} bytes of samples "
            "that its header declares, and they are no chunk: its header is damaged",
        )
    whole = path.read_bytes()
    name = b"RIFX" if order == "big" else b"RIFF"
    return name + whole[4 : begin - 4] + _UNKNOWN.to_bytes(4, "little") + whole[begin:]


def _chunks_follow(file: BinaryIO, position: int, size: int, order: _Order) -> bool:
    """Whether from here on there are chunks to the end of the file, or nothing."""
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:], order)
        if not _NAME.match(chunk) or position + 8 + length > size:
            return False
        position += 8 + length + length % 2
    return True


def _check_format(path: Path, fields: bytes, order: _Order) -> None:
    """Refuse uncompressed samples whose format contradicts itself by exactly one bit.

    The header says everything twice: bytes of a frame, and of a second. Greater contradictions
    are the work of careless programs, and players believe the fields that are checked here; but
    not a number of bits that is no whole number of bytes and does not give a frame's size.
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
        raise ClipError(
            "decode",
            f"{path} declares {bits} bits of {channels} channels, and {per_frame} bytes for a "
            f"sample of all, expected {channels * width}: its header is damaged",
        )
    for name, value, product, factor in (
        ("rate", rate, per_second, per_frame),
        ("number of channels", channels, per_frame, width),
        ("number of bits", 8 * width, 8 * per_frame, channels),
    ):
        expected, rest = divmod(product, factor)
        if not rest and (value ^ expected).bit_count() == 1:
            raise ClipError(
                "decode",
                f"{path} declares a {name} of {value}, and sizes that belong to {expected}: its "
                "header is damaged",
            )
