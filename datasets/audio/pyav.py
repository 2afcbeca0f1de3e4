"""Containers that libsndfile does not open, decoded by FFmpeg: AAC, WMA, the sound of videos.

Needs PyAV, the extra ``av``. Files that libsndfile opens never come here, so their samples do not
depend on what is installed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..base import ClipError
from .stream import Block

# First bytes of a file, and what it is. (Of AAC, AC-3, AMR, FLV and MPEG video no header says how
# long they are: a file that was cut off between frames is decoded as far as it goes.)
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

# Seconds that may be missing of what the container declares: a few frames of the encoder.
_SLACK_S = 0.25


def open_container(path: Path, head: bytes, reason: str) -> AvStream:
    """The first audio stream of a file that libsndfile does not open.

    Parameters
    ----------
    path
        The file.
    head
        Its first 64 bytes.
    reason
        Why libsndfile does not open it.

    Raises
    ------
    ClipError
        If FFmpeg cannot open it either, or is not installed.
    """
    if _WEB_PAGE.match(head):
        raise ClipError(
            "decode", f"{path} is a web page (HTML or XML), not audio; download the file again"
        )
    kinds = [name for begin, name in _CONTAINERS if re.match(begin, head, re.DOTALL)]
    if not kinds:
        raise ClipError("decode", f"{path} cannot be decoded as audio: {reason}")
    declared = 8 + int.from_bytes(head[4:8], "little") if head.startswith(b"RIFF") else 0
    if declared > path.stat().st_size:
        raise ClipError("decode", f"{path} breaks off: its header declares {declared} bytes")
    try:
        importlib.import_module("av")
    except ImportError:
        raise ClipError(
            "decode",
            f"{path} is {kinds[0]}, which needs the extra av: pip install '.[av]' in featreg's "
            "repository; or convert it with ffmpeg",
        ) from None
    return AvStream(path)


class AvStream:
    """What FFmpeg decodes; see `stream.Stream`.

    An excerpt is found by decoding from the start, so that it equals the same samples of the
    whole.

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
                raise ClipError("decode", f"{path} has no audio stream")
            audio = container.streams.audio[0]
            codec = audio.codec_context
            if codec is None or not codec.sample_rate:
                raise ClipError("decode", f"{path}: FFmpeg does not know its audio encoding")
            self.rate, self.channels = int(codec.sample_rate), int(codec.channels)
            self.samples: int | None = None
            self._length = 0
            if audio.duration is not None:
                self.samples = round(audio.duration * audio.time_base * self.rate)
                if "mp4" in container.format.name:  # others round it
                    self._length = self.samples
            elif len(container.streams) == 1 and container.duration is not None:
                self.samples = round(container.duration * self.rate / self._av.time_base)
            # A bare sequence of frames declares nothing: FFmpeg estimates.
            self._declared = container.format.name not in ("aac", "amr", "ac3", "mp3", "mpeg")

    def _open(self) -> Any:
        try:
            return self._av.open(str(self._path))
        except self._av.FFmpegError as error:
            raise ClipError("decode", f"{self._path} cannot be decoded: {error.strerror}") from None

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `stream.Stream`."""
        position = 0
        try:
            with self._open() as container:
                for block in self._without_padding(self._decode(container)):
                    end = position + len(block)
                    if end > start:
                        last = len(block) if stop is None else min(len(block), stop - position)
                        yield block[max(0, start - position) : last]
                    position = end
                    if stop is not None and position >= stop:
                        return
        except self._av.FFmpegError as error:
            raise ClipError(
                "decode",
                f"{self._path} cannot be decoded beyond {position / self.rate:.2f} s: "
                f"{error.strerror}",
            ) from None
        if self._declared and position < (self.samples or 0) - _SLACK_S * self.rate:
            raise ClipError(
                "decode",
                f"{self._path} breaks off: its header declares "
                f"{(self.samples or 0) / self.rate:.2f} s, {position / self.rate:.2f} s could be "
                "decoded",
            )

    def _without_padding(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Without what an encoder added to fill its last frame, if the stream gives its length."""
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
                raise ClipError(
                    "decode",
                    f"{self._path} changes from {self.rate} Hz and {self.channels} channels to "
                    f"{frame.sample_rate} Hz and {frame.layout.nb_channels}; convert it with "
                    "ffmpeg",
                )
            for converted in to_float.resample(frame):
                yield converted.to_ndarray().T
