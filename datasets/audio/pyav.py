"""Decoding by FFmpeg of containers that libsndfile does not open: AAC, WMA, and videos.

This requires PyAV, the extra ``av``. Files that libsndfile opens are always decoded by libsndfile,
so that their samples do not depend on the installed packages.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..base import DecodeError
from .stream import Block, cut

# First bytes of a file, and its format. (AAC, AC-3, AMR, FLV and MPEG video declare no length: a
# file that is truncated between frames is decoded up to its end.)
_CONTAINERS = (
    (rb".{4}(ftyp|moov|mdat|wide)", "MPEG-4 or QuickTime (m4a, mp4, mov)"),
    (rb"\x1aE\xdf\xa3", "Matroska or WebM (mka, mkv, webm)"),
    (rb"0&\xb2u", "ASF (wma, wmv)"),
    (rb"OggS", "Ogg with several streams at the same time (ogv)"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", "AAC"),
    (rb"ADIF", "AAC"),
    (rb"RIFF.{4}AVI ", "AVI"),
    (rb"FLV\x01", "Flash video (flv)"),
    (rb"#!AMR", "AMR"),
    (rb"wvpk", "WavPack (wv)"),
    (rb"MAC ", "Monkey's Audio (ape)"),
    (rb"TTA1", "True Audio (tta)"),
    (rb"\x0bw", "AC-3"),
    (rb"\x00\x00\x01\xba", "MPEG video (mpg)"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)

# Seconds that may be missing from the declared length: a few frames of the encoder.
_SLACK_S = 0.25


def open_container(path: Path, head: bytes, reason: str) -> AvStream:
    """Open the first audio stream of a file that libsndfile does not open.

    Parameters
    ----------
    path
        The file.
    head
        First 64 bytes of the file.
    reason
        The error of libsndfile.

    Raises
    ------
    ClipError
        If FFmpeg cannot open it either, or PyAV is not installed.
    """
    if _WEB_PAGE.match(head):
        raise DecodeError(f"{path} is a web page (HTML or XML), not audio; download the file again")
    kinds = [name for begin, name in _CONTAINERS if re.match(begin, head, re.DOTALL)]
    if not kinds:
        raise DecodeError(f"{path} cannot be decoded as audio: {reason}")
    declared = 8 + int.from_bytes(head[4:8], "little") if head.startswith(b"RIFF") else 0
    if declared > path.stat().st_size:
        raise DecodeError(f"{path} breaks off: its header declares {declared} bytes")
    try:
        importlib.import_module("av")
    except ImportError:
        raise DecodeError(
            f"{path} is {kinds[0]}, which needs the extra av: pip install '.[av]' in featreg's "
            "repository; or convert it with ffmpeg"
        ) from None
    return AvStream(path)


class AvStream:
    """A stream that FFmpeg decodes; see `stream.Stream`.

    It is decoded from the start, so that an excerpt equals the same samples of the whole file.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._av: Any = importlib.import_module("av")
        self._av.logging.set_level(self._av.logging.PANIC)
        with self._open() as container:
            if not container.streams.audio:
                raise DecodeError(f"{path} has no audio stream")
            audio = container.streams.audio[0]
            codec = audio.codec_context
            if codec is None or not codec.sample_rate:
                raise DecodeError(f"{path}: FFmpeg does not know its audio encoding")
            self.rate, self.channels = int(codec.sample_rate), int(codec.channels)
            self.samples: int | None = None
            self._length = 0
            if audio.duration is not None:
                self.samples = round(audio.duration * audio.time_base * self.rate)
                if "mp4" in container.format.name:  # others round it
                    self._length = self.samples
            elif len(container.streams) == 1 and container.duration is not None:
                self.samples = round(container.duration * self.rate / self._av.time_base)
            # A sequence of frames without a container declares nothing: FFmpeg estimates.
            self._declared = container.format.name not in ("aac", "amr", "ac3", "mp3", "mpeg")

    def _open(self) -> Any:
        try:
            return self._av.open(str(self._path))
        except self._av.FFmpegError as error:
            raise DecodeError(f"{self._path} cannot be decoded: {error.strerror}") from None

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `stream.Stream`."""
        with self._open() as container:
            yield from cut(self._checked(container), start, stop)

    def _checked(self, container: Any) -> Iterator[Block]:
        """All blocks; raise an error if they cannot be decoded up to the declared end."""
        position = 0
        try:
            for block in self._without_padding(self._decode(container)):
                position += len(block)
                yield block
        except self._av.FFmpegError as error:
            raise DecodeError(
                f"{self._path} cannot be decoded beyond {position / self.rate:.2f} s: "
                f"{error.strerror}"
            ) from None
        if self._declared and position < (self.samples or 0) - _SLACK_S * self.rate:
            raise DecodeError(
                f"{self._path} breaks off: its header declares "
                f"{(self.samples or 0) / self.rate:.2f} s, {position / self.rate:.2f} s could be "
                "decoded"
            )

    def _without_padding(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Remove the padding of the last frame, if the stream declares its length."""
        position, behind = 0, []
        for block in blocks:
            inside = max(0, self._length - position) if self._length else len(block)
            position += len(block)
            if inside:
                yield block[:inside]
            behind.append(block[inside:])
            if self._length and position > self._length + _SLACK_S * self.rate:
                yield from behind  # too much for padding: the length is wrong
                behind.clear()

    def _decode(self, container: Any) -> Iterator[Block]:
        """Blocks of shape (n, channels)."""
        audio = container.streams.audio[0]
        audio.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
        to_float = self._av.AudioResampler(format="fltp")
        for frame in container.decode(audio):
            if frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
                raise DecodeError(
                    f"{self._path} changes from {self.rate} Hz and {self.channels} channels to "
                    f"{frame.sample_rate} Hz and {frame.layout.nb_channels}; convert it with "
                    "ffmpeg"
                )
            for converted in to_float.resample(frame):
                yield converted.to_ndarray().T
