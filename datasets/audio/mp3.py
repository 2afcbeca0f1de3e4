"""MP3 files: frames counted, because what headers declare of their number may be wrong.

An mp3 is a sequence of frames, each with a header of four bytes (ISO/IEC 11172-3, 13818-3)::

    11111111 111VVLLP BBBBRRGx MMxxxxxx
    V  version: 11 MPEG-1, 10 MPEG-2, 00 MPEG-2.5      B  bit rate, an index
    L  layer: 01 is III, which is what mp3 means       R  sampling rate, an index
    P  0 where a checksum follows                      G  1 where one byte of padding does
    x  of no matter here                               M  channels: 11 is mono

The bit rate is that of this frame alone, and only a frame without sound that most encoders write
first gives the number of frames and of bytes: it holds ``Xing`` or ``Info`` (and, of LAME and
FFmpeg, the samples that the encoder added at the start and the end; of LAME a CRC-16 of itself), or
``VBRI``. Without it a decoder
estimates the length from the first frame's bit rate and the file's size, and libsndfile reads no
further than that. Files that are appended to each other have several such frames.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import soundfile

from ..base import ClipError
from .appended import check_appended
from .stream import SndfileStream, Stream, chain

# kbit/s by index; index 0 leaves the rate open, and 15 is none.
_KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# Version bits: kbit/s, sampling rates in Hz, and samples in a frame.
_VERSIONS = {
    0b11: (_KBPS_1, (44100, 48000, 32000), 1152),
    0b10: (_KBPS_2, (22050, 24000, 16000), 576),
    0b00: (_KBPS_2, (11025, 12000, 8000), 576),
}
# The first three bytes of every possible header: bytes, samples and rate of its frame.
_FRAMES = {
    bytes((0xFF, 0xE2 | version << 3 | bare, b << 4 | r << 2 | low)): (
        samples // 8 * 1000 * kbps // rate + (low >> 1),
        samples,
        rate,
    )
    for version, (rates_kbps, rates, samples) in _VERSIONS.items()
    for b, kbps in enumerate(rates_kbps, 1)
    for r, rate in enumerate(rates)
    for low in range(4)
    for bare in range(2)
}
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")

# Where in the first frame the tag is: after the header and the side information of either version
# and number of channels.
_TAG_AT = (36, 21, 13)

# Samples by which every decoder is late.
_DECODER_DELAY = 529

# Frames that a tag may declare and the file lack: some encoders count the tag's own.
_SLACK = 2

# Frames decoded before an excerpt: a frame may use up to 511 bytes of those before it, and the
# smallest of 1152 samples has 87. From a multiple of 8 on, the decoder rounds as from the start.
_LEAD = 16

# Samples of a frame at 32 kHz and above.
_LONG = 1152


@dataclass(slots=True)
class Part:
    """Frames that belong to one tag, or to none.

    Attributes
    ----------
    begin, end
        Bytes from the first frame with sound to the last.
    rate
        In Hz.
    frames, samples
        Whole frames with sound, and the samples of these in each channel.
    first_bytes, bytes
        Size of the first, and of all of them.
    declared
        Frames that the tag declares; None if it does not say, or there is none.
    declared_bytes
        Size of all frames with sound that the tag declares; 0 or less if it does not say.
    damaged
        Whether the tag has another checksum than it states, or the frames are mono and stereo.
    mono
        Whether the first frame with sound is.
    delay, padding
        Samples that the encoder added at the start and at the end; None if the tag does not say.
    """

    begin: int
    end: int
    rate: int
    frames: int = 0
    samples: int = 0
    first_bytes: int = 0
    bytes: int = 0
    declared: int | None = None
    declared_bytes: int = 0
    damaged: bool = False
    mono: bool = False
    delay: int | None = None
    padding: int = 0

    @property
    def lacks_frames(self) -> bool:
        """Whether frames are missing: more than a count may be wrong, or the bytes of them too."""
        missing = (self.declared or 0) - self.frames
        return missing > _SLACK or (missing > 0 and self.bytes < self.declared_bytes)

    @property
    def bounds(self) -> tuple[int, int]:
        """First sample of the encoded sound, and the one after its last."""
        if self.delay is None:
            return 0, self.samples
        start = min(self.samples, self.delay + _DECODER_DELAY)
        if (self.declared or self.frames) < self.frames:  # more follow than the padding is behind
            return start, self.samples
        end = self.samples - max(0, self.padding - _DECODER_DELAY)
        return start, max(start, min(self.samples, end))


def open_mp3(path: Path) -> Stream:
    """The audio of an mp3, and of those that are appended to it.

    Raises
    ------
    ClipError
        If frames are missing that a tag declares, a tag is damaged, a file of another format
        follows, or the rate changes.
    """
    about = path.stat()
    found = _parts_of(path, about.st_size, about.st_mtime_ns)
    if not found:  # free format: the length of frames is nowhere
        return SndfileStream(path, path)
    before = 0
    for part in found:
        if part.damaged:
            raise ClipError(
                "decode",
                f"{path}: from {before / part.rate:.2f} s on, the frame that declares the length "
                "has a wrong checksum, or frames change between mono and stereo: it is damaged; "
                "ffmpeg -i IN.mp3 OUT.wav decodes what it can",
            )
        if part.lacks_frames:
            raise ClipError(
                "decode",
                f"{path} breaks off after {(before + part.samples) / part.rate:.2f} s: its header "
                f"declares {part.declared} frames, {part.frames} are there",
            )
        before += part.samples
    if len(found) == 1 and (stream := _as_declared(path, found[0])):
        return stream
    data = path.read_bytes()
    return chain(path, [_stream(path, data, part) for part in found])


def _as_declared(path: Path, part: Part) -> Stream | None:
    """The file itself, if libsndfile finds the same length in it; None if it does not."""
    start, end = part.bounds
    with soundfile.SoundFile(os.fsencode(path)) as file:
        if file.frames != end - start:
            return None
    each = part.samples // part.frames
    return SndfileStream(path, path, end - start, slack=each, lead=_lead(each, start))


def _stream(path: Path, data: bytes, part: Part) -> Stream:
    """The frames of a part alone, and zeros after them: so many that no estimate is too short."""
    start, end = part.bounds
    frames = data[part.begin : part.end].ljust(part.frames * (part.first_bytes + 1), b"\0")
    lead = _lead(part.samples // part.frames, 0)
    return SndfileStream(path, frames, end - start, skip=start, limited=True, lead=lead)


def _lead(each: int, skipped: int) -> Callable[[int], int]:
    """Where to seek to, with frames of `each` samples, of which a decoder skips the first ones.

    With frames of 576 samples libsndfile's decoder rounds in another way after it has sought;
    such files are decoded from the start.
    """

    def position(sample: int) -> int:
        frame = ((sample + skipped) // each - _LEAD) // 8 * 8
        return frame * each - skipped + each // 2 if each == _LONG and frame > 0 else 0

    return position


@lru_cache(maxsize=64)  # clips that are cut from one file come one after the other
def _parts_of(path: Path, size: int, changed_ns: int) -> list[Part]:
    data = path.read_bytes()
    check_appended(path, data, "mp3")
    return parts(data)


def parts(data: bytes) -> list[Part]:
    """The frames of an mp3 by the tags before them; none if it has no frames that can be counted.

    Frames without sound that carry a tag are left out, and so is a last frame that is cut.
    """
    found: list[Part] = []
    for position, length, samples, rate in _frames(data):
        tagged = _tagged(data, position, length)
        if tagged or not found or (found[-1].frames and found[-1].rate != rate):
            found.append(tagged or Part(position, position, rate))
            if tagged:
                tagged.rate = rate
                continue
        part = found[-1]
        if not part.frames:
            part.begin, part.first_bytes, part.rate = position, length, rate
            part.mono = _is_mono(data, position)
        part.damaged |= part.mono != _is_mono(data, position)
        part.frames += 1
        part.bytes += length
        part.samples += samples
        part.end = position + length
    return [part for part in found if part.frames]


def _is_mono(data: bytes, position: int) -> bool:
    return data[position + 3] >> 6 == 3


def _tagged(data: bytes, position: int, length: int) -> Part | None:
    """A part without frames yet, if this frame carries a tag."""
    frame = data[position : position + length]
    for offset in _TAG_AT:
        name = frame[offset : offset + 4]
        if name in (b"Xing", b"Info"):
            return _xing(frame, offset, position)
        if name == b"VBRI" and offset == 36:
            size, declared = struct.unpack(">II", frame[offset + 10 : offset + 18].ljust(8, b"\0"))
            part = Part(position, position, 0, declared=declared or None)
            part.declared_bytes = size - length
            return part
    return None


def _xing(frame: bytes, offset: int, position: int) -> Part:
    """What a tag says: flags, and the fields that these announce, and what LAME adds."""
    part, tag = Part(position, position, 0), frame[offset:]
    flags, at = tag[7] if len(tag) > 7 else 0, 8
    if flags & 1:
        part.declared = int.from_bytes(tag[at : at + 4], "big") or None
    if flags & 2:
        size_at = at + 4 * (flags & 1)
        part.declared_bytes = int.from_bytes(tag[size_at : size_at + 4], "big") - len(frame)
    at += sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    if len(tag) >= at + 24 and tag[at]:
        added = int.from_bytes(tag[at + 21 : at + 24], "big")
        part.delay, part.padding = added >> 12, added & 0xFFF
    name = frame.find(b"LAME", offset, offset + 128)  # wherever damaged flags put it
    if name >= 0 and len(frame) >= name + 36:
        checksum = int.from_bytes(frame[name + 34 : name + 36], "big")
        part.damaged = checksum not in (0, _crc16(frame[: name + 34]))
    return part


def _crc16(data: bytes) -> int:
    """CRC-16 of IBM, the lowest bit first."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def _frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Position, bytes, samples and rate of each whole frame."""
    position: int | None = 0
    while position is not None:
        head = data[position : position + 3]
        length, samples, rate = _FRAMES.get(head, (0, 0, 0))
        if length and position + length <= len(data):
            yield position, length, samples, rate
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
        length = _FRAMES.get(head, (0, 0, 0))[0]
        after = data[here + length : here + length + 3]
        if length and after in _FRAMES and after[1] | 1 == head[1] | 1:
            return here
    return None
