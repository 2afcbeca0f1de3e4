"""Decoding and resampling of clips; runs in a child process, without torch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import Resampler, check_format, decode, length, resample
from featreg.datasets.audio.files import open_audio
from featreg.datasets.base import Clip, ClipError

# Stage at which a clip fails in which every sample is zero.
SILENCE = "silence"

# Larger files (in bytes) are read only while they are decoded, possibly in part.
_READ_WHOLE = 1 << 28


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Options of `decode_clip`.

    Attributes
    ----------
    rates
        Sample rates to which every clip is resampled, in Hz.
    resampler
        Algorithm for sample-rate conversion.
    keep_silent
        Whether clips in which every sample is zero are kept.
    """

    rates: tuple[int, ...]
    resampler: Resampler
    keep_silent: bool


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A decoded clip.

    Attributes
    ----------
    duration_s
        Decoded length in seconds.
    signals
        Mono signal of shape (samples,) in [-1, 1] for each sample rate.
    seconds
        Seconds that each stage took.
    """

    duration_s: float
    signals: dict[int, npt.NDArray[np.float32]]
    seconds: dict[str, float]

    @property
    def nbytes(self) -> int:
        """Bytes of the signals."""
        return sum(signal.nbytes for signal in self.signals.values())


def decode_clip(clip: Clip, options: DecodeOptions) -> DecodedClip | ClipError:
    """Decode a clip and resample it to each rate; return the error if this fails."""
    try:
        begin = time.perf_counter()
        _read(clip)
        read = time.perf_counter()
        signal, rate = decode(clip)
        if not options.keep_silent and not signal.any():
            return ClipError(
                SILENCE,
                f"{clip.path}: every sample of its {len(signal) / rate:.2f} s is zero; "
                "use --keep-silent to keep such clips",
            )
        decoded = time.perf_counter()
        signals = {
            target: resample(signal, rate, target, options.resampler) for target in options.rates
        }
    except ClipError as error:
        return error
    seconds = {
        "read": read - begin,
        "decode": decoded - read,
        "resample": time.perf_counter() - decoded,
    }
    return DecodedClip(len(signal) / rate, signals, seconds)


def length_s(clip: Clip) -> float | None:
    """Length of the clip in seconds; None if it cannot be read.

    It is the length that the file declares, if that is plausible; otherwise the file is decoded.
    """
    try:
        with open_audio(clip.path) as stream:
            check_format(clip.path, stream)
            whole = length(stream) / stream.rate - clip.start_s
    except ClipError:
        return None
    if whole <= 0:
        return None
    return whole if clip.duration_s is None else min(whole, clip.duration_s)


def _read(clip: Clip) -> None:
    """Read the file into the system's cache.

    Decoders read small pieces, which is slow on a network file system. It also separates the time
    of reading from that of decoding.
    """
    try:
        if not clip.path.is_file():
            return
        with clip.path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= _READ_WHOLE:
                while file.read(1 << 20):
                    pass
    except OSError:
        return  # the decoder will report the error
