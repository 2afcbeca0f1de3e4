"""MP3 files, whose frames are counted, because the declared number may be wrong.

An mp3 is a sequence of frames, each with a header of four bytes (ISO/IEC 11172-3, 13818-3)::

    11111111 111VVLLP BBBBRRGx MMxxxxxx
    V  version: 11 MPEG-1, 10 MPEG-2, 00 MPEG-2.5      B  bit rate, an index
    L  layer: 01 is layer III, that is mp3             R  sample rate, an index
    P  0 if a checksum follows                         G  1 if a byte of padding follows
    x  not used here                                   M  channels: 11 is mono

The bit rate is that of this frame alone. The number of frames and bytes is only in a frame without
sound (the "tag") that most encoders write first. It contains ``Xing`` or ``Info`` (LAME and FFmpeg
add the number of samples that the encoder added at the start and at the end; LAME also adds a
CRC-16 of the tag), or ``VBRI``. Without a tag, a decoder estimates the length from the bit rate of
the first frame and the size of the file, and libsndfile reads no further than that. If files are
appended to each other, there are several tags.
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

from ..base import DecodeError
from .appended import check_appended
from .stream import SndfileStream, Stream, chain

# kbit/s by index, from 1 to 14; index 0 means an unspecified rate, and 15 is invalid.
_KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# Version bits: kbit/s, sample rates in Hz, and samples per frame.
_VERSIONS = {
    0b11: (_KBPS_1, (44100, 48000, 32000), 1152),
    0b10: (_KBPS_2, (22050, 24000, 16000), 576),
    0b00: (_KBPS_2, (11025, 12000, 8000), 576),
}
# First three bytes of every possible header: bytes, samples and sample rate of the frame.
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

# Positions of a tag in its frame: after the header and the side information, whose length depends
# on the version and the number of channels.
_TAG_AT = (36, 21, 13)

# Delay of every decoder, in samples.
_DECODER_DELAY = 529

# Number of frames that may be missing: some encoders count the frame of the tag.
_SLACK = 2

# Number of frames decoded before an excerpt: a frame may use up to 511 bytes of the previous ones,
# and the smallest frame of 1152 samples has 87. After seeking to a multiple of 8 frames, the
# decoder rounds as from the start.
_LEAD = 16

# Samples per frame at 32 kHz and above.
_LONG = 1152


@dataclass(slots=True)
class Part:
    """Frames after a tag, or without one.

    Attributes
    ----------
    begin, end
        Positions in bytes of the first frame with sound, and of the end of the last one.
    rate
        Sample rate in Hz.
    frames, samples
        Number of whole frames with sound, and of their samples per channel.
    first_bytes, bytes
        Size of the first frame, and of all frames.
    declared
        Number of frames that the tag declares; None if it declares none, or there is no tag.
    declared_bytes
        Size of all frames with sound that the tag declares; 0 or less if it declares none.
    damaged
        Whether the checksum of the tag is wrong, or some frames are mono and others stereo.
    mono
        Whether the first frame with sound is mono.
    delay, padding
        Numbers of samples that the encoder added at the start and at the end; `delay` is None
        if the tag does not declare them.
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
        """Whether frames are missing, allowing for encoders that count the frame of the tag."""
        missing = (self.declared or 0) - self.frames
        return missing > _SLACK or (missing > 0 and self.bytes < self.declared_bytes)

    @property
    def bounds(self) -> tuple[int, int]:
        """First sample of the encoded sound, and its end (exclusive)."""
        if self.delay is None:
            return 0, self.samples
        start = min(self.samples, self.delay + _DECODER_DELAY)
        if (self.declared or self.frames) < self.frames:  # the padding is not at the end
            return start, self.samples
        end = self.samples - max(0, self.padding - _DECODER_DELAY)
        return start, max(start, min(self.samples, end))


def open_mp3(path: Path) -> Stream:
    """Open an mp3 file, including other mp3 files appended to it.

    Raises
    ------
    ClipError
        If frames that a tag declares are missing, a tag is damaged, a file of another format is
        appended, or the sample rate changes.
    """
    about = path.stat()
    found = _parts_of(path, about.st_size, about.st_mtime_ns)
    if not found:  # free format: frames do not declare their length
        return SndfileStream(path, path)
    before = 0
    for part in found:
        if part.damaged:
            raise DecodeError(
                f"{path}: from {before / part.rate:.2f} s on, the frame that declares the length "
                "has a wrong checksum, or frames change between mono and stereo: it is damaged; "
                "ffmpeg -i IN.mp3 OUT.wav decodes what it can"
            )
        if part.lacks_frames:
            raise DecodeError(
                f"{path} breaks off after {(before + part.samples) / part.rate:.2f} s: its header "
                f"declares {part.declared} frames, {part.frames} are there"
            )
        before += part.samples
    if len(found) == 1 and (stream := _as_declared(path, found[0])):
        return stream
    data = path.read_bytes()
    return chain(path, [_stream(path, data, part) for part in found])


def _as_declared(path: Path, part: Part) -> Stream | None:
    """A stream of the whole file, if libsndfile finds the same length; else None."""
    start, end = part.bounds
    with soundfile.SoundFile(os.fsencode(path)) as file:
        if file.frames != end - start:
            return None
    each = part.samples // part.frames
    return SndfileStream(path, path, end - start, slack=each, lead=_lead(each, start))


def _stream(path: Path, data: bytes, part: Part) -> Stream:
    """A stream of one part, padded with zeros, so that libsndfile estimates a sufficient length."""
    start, end = part.bounds
    frames = data[part.begin : part.end].ljust(part.frames * (part.first_bytes + 1), b"\0")
    lead = _lead(part.samples // part.frames, 0)
    return SndfileStream(path, frames, end - start, skip=start, limited=True, lead=lead)


def _lead(each: int, skipped: int) -> Callable[[int], int]:
    """Positions to seek to in frames of `each` samples; a decoder skips the first `skipped` ones.

    With frames of 576 samples, libsndfile rounds differently after seeking, so that such files
    are decoded from the start.
    """

    def position(sample: int) -> int:
        frame = ((sample + skipped) // each - _LEAD) // 8 * 8
        return frame * each - skipped + each // 2 if each == _LONG and frame > 0 else 0

    return position


@lru_cache(maxsize=64)  # consecutive clips are often excerpts of one file
def _parts_of(path: Path, size: int, changed_ns: int) -> list[Part]:
    data = path.read_bytes()
    check_appended(path, data, "mp3")
    return parts(data)


def parts(data: bytes) -> list[Part]:
    """Divide the frames of an mp3 by the tags; empty if there are no frames to count.

    Frames that contain a tag, and an incomplete last frame, are omitted.
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
    """A part without frames, if this frame contains a tag; else None."""
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
    """Parse a ``Xing`` or ``Info`` tag: flags, the fields they announce, and LAME's fields."""
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
    name = frame.find(b"LAME", offset, offset + 128)  # the flags may be damaged
    if name >= 0 and len(frame) >= name + 36:
        checksum = int.from_bytes(frame[name + 34 : name + 36], "big")
        part.damaged = checksum not in (0, _crc16(frame[: name + 34]))
    return part


def _crc16(data: bytes) -> int:
    """CRC-16 (IBM), lowest bit first."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def _frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield position, bytes, samples and sample rate of each whole frame."""
    position: int | None = 0
    while position is not None:
        head = data[position : position + 3]
        length, samples, rate = _FRAMES.get(head, (0, 0, 0))
        if length and position + length <= len(data):
            yield position, length, samples, rate
            position += length
        elif head == b"ID3":  # a header of ten bytes, the last four of which are the size
            a, b, c, d = data[position + 6 : position + 10].ljust(4, b"\0")
            position += 10 + (a << 21 | b << 14 | c << 7 | d)
        else:
            position = _resume(data, position + 1)


def _resume(data: bytes, position: int) -> int | None:
    """Position of the next two consecutive frames, which do not occur by chance; or None."""
    for match in _SYNC.finditer(data, position):
        here = match.start()
        head = data[here : here + 3]
        length = _FRAMES.get(head, (0, 0, 0))[0]
        after = data[here + length : here + length + 3]
        if length and after in _FRAMES and after[1] | 1 == head[1] | 1:
            return here
    return None
