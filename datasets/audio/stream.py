"""Streams of samples, read from front to back as far as there are any."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from ..base import ClipError

Block = npt.NDArray[np.float32]

BLOCK = 1 << 18

# In these containers and encodings libsndfile finds every sample exactly. In others it starts with
# a decoder that lacks what came before (mp3, Opus), at a wrong sample (the last page of Vorbis), or
# not at all (GSM).
_CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class Stream(Protocol):
    """Samples of one rate and number of channels.

    Attributes
    ----------
    rate
        In Hz.
    channels
        Their number.
    samples
        Length that the file declares, which may be wrong; None where it declares none.
    """

    rate: int
    channels: int
    samples: int | None

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Samples `start` to `stop` (None: to the end), in blocks of shape (n, channels).

        Fewer if the stream ends before `stop`. ClipError if it ends before it should.
        """
        ...


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A sound file that soundfile does not reposition after each read."""

    def seekable(self) -> bool:
        return False


class SndfileStream:
    """What libsndfile decodes.

    Parameters
    ----------
    path
        Named in errors.
    source
        What is decoded: a file, or the contents of one.
    declared
        Samples that there must be; None where that is unknown. What follows them is read too,
        but an error there (a tag of another format) is the end.
    slack
        Samples that may be missing all the same.
    skip
        Samples to leave out at the start, before sample 0.
    limited
        Whether nothing is read beyond `declared`.
    lead
        Where to seek to, to arrive at a sample with a decoder in the right state: a position
        before it, or 0. None to choose by the encoding.
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
        """Position after seeking to, or before, a sample; negative within what is skipped."""
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
            raise ClipError(
                "decode",
                f"{self._path} cannot be decoded beyond {at:.2f} s: {error.error_string}",
            ) from None
        return block

    def _check_end(self, position: int) -> None:
        if self._declared is not None and position < self._declared - self._slack:
            raise ClipError(
                "decode",
                f"{self._path} breaks off: its header declares {self._declared / self.rate:.2f} s, "
                f"{max(0, position) / self.rate:.2f} s could be decoded",
            )


class Chain:
    """Streams one after the other, as one.

    Raises
    ------
    ClipError
        If their rates differ. The number of channels may, because clips are averaged over them.
    """

    def __init__(self, path: Path, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self.rate = streams[0].rate
        self.channels = max(stream.channels for stream in streams)
        for k, stream in enumerate(streams):
            if stream.rate != self.rate:
                raise ClipError(
                    "decode",
                    f"{path} changes its rate: stream 1 has {self.rate} Hz, stream {k + 1} of "
                    f"{len(streams)} has {stream.rate} Hz; split it, or convert it to one rate",
                )
        lengths = [stream.samples for stream in streams]
        self.samples = None if None in lengths else sum(each or 0 for each in lengths)

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `Stream`. What is before `start` is decoded too: only so its length is known."""
        position = 0
        for stream in self._streams:
            for block in stream.blocks(0, None):
                end = position + len(block)
                if end > start:
                    last = len(block) if stop is None else min(len(block), stop - position)
                    yield block[max(0, start - position) : last]
                position = end
                if stop is not None and position >= stop:
                    return


def chain(path: Path, streams: Sequence[Stream]) -> Stream:
    """Streams one after the other; one alone is itself."""
    return streams[0] if len(streams) == 1 else Chain(path, streams)
