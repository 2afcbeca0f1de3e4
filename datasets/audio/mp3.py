"""How many samples an mp3 holds: counted by its frames, for what it declares may be wrong.

An mp3 is a row of frames, each with a header of four bytes (ISO/IEC 11172-3, 13818-3)::

    11111111 111VVLLP BBBBRRGx MMxxxxxx
    V  version: 11 MPEG-1, 10 MPEG-2, 00 MPEG-2.5      B  bit rate, an index
    L  layer: 01 is III, which is what mp3 means       R  sampling rate, an index
    P  0 where a checksum follows                      G  1 where one byte of padding does
    x  of no matter here                               M  channels: 11 is mono

The bit rate is that of this frame alone, and nothing says how many frames there are, but
for a frame of no sound that most encoders put first: in it stands ``Xing`` or ``Info``, and
their number. Without it a decoder guesses from the first frame's bit rate and the file's
size, and libsndfile reads no further than that guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# kbit/s by index; index 0 leaves the rate open, and 15 is none.
_KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# Version bits: kbit/s, sampling rates in Hz, and samples in a frame.
_VERSIONS = {
    0b11: (_KBPS_1, (44100, 48000, 32000), 1152),
    0b10: (_KBPS_2, (22050, 24000, 16000), 576),
    0b00: (_KBPS_2, (11025, 12000, 8000), 576),
}
# The first three bytes of every header that there can be: bytes and samples of its frame.
_FRAMES = {
    bytes((0xFF, 0xE2 | version << 3 | bare, b << 4 | r << 2 | low)): (
        samples // 8 * 1000 * kbps // rate + (low >> 1),
        samples,
    )
    for version, (rates_kbps, rates, samples) in _VERSIONS.items()
    for b, kbps in enumerate(rates_kbps, 1)
    for r, rate in enumerate(rates)
    for low in range(4)
    for bare in range(2)
}
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")

# In the first frame, after the header and the side information of either version and number of
# channels: which fields follow (1: the number of frames), and the first of them.
_TAG = re.compile(rb".{4}(?:.{9}|.{17}|.{32})(?:Xing|Info)(.{4})(.{4})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Contents:
    """What frames there are.

    Attributes
    ----------
    start
        Byte at which the first frame with sound begins.
    frames
        Whole frames with sound.
    samples
        Of these in each channel, the delays of encoder and decoder among them.
    first_bytes
        Size of the first.
    declared
        Whether the file declares all of them, or more: a decoder then knows its length.
    """

    start: int
    frames: int
    samples: int
    first_bytes: int
    declared: bool


def contents(data: bytes) -> Contents | None:
    """What is in an mp3; None where it has no frames that can be counted (free format)."""
    frames = list(_frames(data))
    if not frames:
        return None
    tag = _TAG.match(data, frames[0][0])
    sound = frames[1:] if tag else frames
    declared = int.from_bytes(tag[2], "big") if tag and tag[1][3] & 1 else 0
    start, first_bytes, _ = sound[0] if sound else (len(data), 0, 0)
    samples = sum(each for _, _, each in sound)
    return Contents(start, len(sound), samples, first_bytes, declared >= len(sound))


def lengthened(data: bytes, found: Contents) -> bytes:
    """The frames with sound, and zeros after them: so many that no guess is too short.

    Samples beyond `found.samples` must not be asked for.
    """
    return data[found.start :].ljust(found.frames * (found.first_bytes + 1), b"\0")


def _frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Position, bytes and samples of each whole frame."""
    position: int | None = 0
    while position is not None:
        head = data[position : position + 3]
        length, samples = _FRAMES.get(head, (0, 0))
        if length and position + length <= len(data):
            yield position, length, samples
            position += length
        elif head == b"ID3":  # ten bytes, and as many as the last four of them say
            a, b, c, d = data[position + 6 : position + 10].ljust(4, b"\0")
            position += 10 + (a << 21 | b << 14 | c << 7 | d)
        else:
            position = _resume(data, position + 1)


def _resume(data: bytes, position: int) -> int | None:
    """Where frames go on after something else: two in a row, which chance does not make."""
    for match in _SYNC.finditer(data, position):
        here = match.start()
        head = data[here : here + 3]
        length, _ = _FRAMES.get(head, (0, 0))
        after = data[here + length : here + length + 3]
        if length and after in _FRAMES and after[1] | 1 == head[1] | 1:
            return here
    return None
