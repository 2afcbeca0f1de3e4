"""Streams of samples, read from the start to the end."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from ..base import DecodeError

Block = npt.NDArray[np.float32]

BLOCK = 1 << 18

# Containers and encodings in which libsndfile seeks to the exact sample. In others, it decodes
# without the preceding frames (mp3, Opus), starts at a wrong sample (the last page of Vorbis), or
# cannot seek (GSM).
_CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class Stream(Protocol):
    """Samples of one rate and number of channels.

    Attributes
    ----------
    rate
        Sample rate in Hz.
    channels
        Number of channels.
    samples
        Length that the file declares, which may be wrong; None if it declares none.
    """

    rate: int
    channels: int
    samples: int | None

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Yield samples `start` to `stop` (None: to the end) in blocks of shape (n, channels).

        If the stream ends before `stop`, there are fewer samples.

        Raises
        ------
        ClipError
            If the stream ends before the length that it declares, or is damaged.
        """
        ...


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A sound file in which soundfile does not seek after each read."""

    def seekable(self) -> bool:
        return False


class SndfileStream:
    """A stream that libsndfile decodes.

    Parameters
    ----------
    path
        Path for error messages.
    source
        The file to decode, or its content.
    declared
        Minimum number of samples; None if unknown. Samples after them are read, too, but an
        error there (for example at a tag of another format) is the end of the stream.
    slack
        Number of samples that may be missing nevertheless.
    skip
        Number of samples to omit at the start, before sample 0.
    limited
        Whether to stop after `declared` samples.
    lead
        Function that returns the position to seek to for a given sample, such that the state of
        the decoder is correct there: an earlier position, or 0. None to choose by the encoding.
    """

    def __init__(
        self,
        path: Path,
        source: Path | bytes,
        declared: int | None = None,
        *,
        slack: int = 0,
        skip: int = 0,
        limited: bool = False,
        lead: Callable[[int], int] | None = None,
    ) -> None:
        self._path, self._source, self._declared = path, source, declared
        self._slack, self._skip, self._limited, self._lead = slack, skip, limited, lead
        with self._open() as file:
            self.rate, self.channels = int(file.samplerate), int(file.channels)
            frames = int(file.frames)
            if lead is None:
                exact = soundfile.SoundFile.seekable(file)
                exact = exact and file.format in _CONTAINERS
                exact = exact and file.subtype.startswith(_ENCODINGS)
                self._lead = (lambda sample: sample) if exact else (lambda sample: 0)
        self.samples: int | None = frames if declared is None else declared

    def _open(self) -> _Sequential:
        source = self._source
        if isinstance(source, bytes):
            return _Sequential(io.BytesIO(source))
        return _Sequential(os.fsencode(source))  # a name need not be UTF-8

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `Stream`."""
        if self._limited:
            stop = self._declared if stop is None else min(stop, self._declared or 0)
        with self._open() as file:
            position = self._seek(file, start)
            while stop is None or position < stop:
                block = self._read(file, position, stop)
                if not len(block):
                    self._check_end(position)
                    return
                if position + len(block) > start:
                    yield block[max(0, start - position) :]
                position += len(block)

    def _seek(self, file: _Sequential, start: int) -> int:
        """Seek to a sample or before it; return the position, negative in skipped samples."""
        assert self._lead is not None
        target = self._lead(start + self._skip)
        if 0 < target < file.frames:
            return int(file.seek(target)) - self._skip
        return -self._skip

    def _read(self, file: _Sequential, position: int, stop: int | None) -> Block:
        count = BLOCK if stop is None else min(BLOCK, stop - position)
        enough = self._declared is not None and position >= self._declared
        if self._declared is not None and not enough:
            count = min(count, self._declared - position)
        try:
            block: Block = file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            if enough:
                return np.empty((0, self.channels), np.float32)
            at = max(0, position) / self.rate
            raise DecodeError(
                f"{self._path} cannot be decoded beyond {at:.2f} s: {error.error_string}"
            ) from None
        return block

    def _check_end(self, position: int) -> None:
        if self._declared is not None and position < self._declared - self._slack:
            raise DecodeError(
                f"{self._path} breaks off: its header declares {self._declared / self.rate:.2f} s, "
                f"{max(0, position) / self.rate:.2f} s could be decoded"
            )


class Chain:
    """Concatenation of streams, whose numbers of channels may differ.

    Raises
    ------
    ClipError
        If their sample rates differ.
    """

    def __init__(self, path: Path, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self.rate = streams[0].rate
        self.channels = max(stream.channels for stream in streams)
        for k, stream in enumerate(streams):
            if stream.rate != self.rate:
                raise DecodeError(
                    f"{path} changes its rate: stream 1 has {self.rate} Hz, stream {k + 1} of "
                    f"{len(streams)} has {stream.rate} Hz; split it, or convert it to one rate"
                )
        lengths = [stream.samples for stream in streams]
        self.samples = None if None in lengths else sum(each or 0 for each in lengths)

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `Stream`. Each stream is decoded from its start, because its length is unknown."""
        every = (block for stream in self._streams for block in stream.blocks(0, None))
        return cut(every, start, stop)


def cut(blocks: Iterable[Block], start: int, stop: int | None) -> Iterator[Block]:
    """Samples `start` to `stop` (None: to the end) of consecutive blocks, the first from 0 on."""
    position = 0
    for block in blocks:
        end = position + len(block)
        if end > start:
            last = len(block) if stop is None else min(len(block), stop - position)
            yield block[max(0, start - position) : last]
        position = end
        if stop is not None and position >= stop:
            return


def chain(path: Path, streams: Sequence[Stream]) -> Stream:
    """Concatenate streams; return a single stream unchanged."""
    return streams[0] if len(streams) == 1 else Chain(path, streams)
