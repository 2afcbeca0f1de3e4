"""A clip as the extractors hear it. Runs in a process of its own (see `throwaway.py`): no torch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import Resampler, decode, resample
from featreg.datasets.audio.files import open_audio
from featreg.datasets.base import Clip, ClipError

# Stage at which a clip of nothing but zeros fails.
SILENCE = "silence"

# Longer files are read as the decoder goes; what it asks for first is not what lies first.
_READ_WHOLE = 1 << 28


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What to hear of every clip: the rates, in Hz, and how they are reached."""

    rates: tuple[int, ...]
    resampler: Resampler
    keep_silent: bool


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A clip as every extractor hears it: one signal for each rate."""

    duration_s: float
    signals: dict[int, npt.NDArray[np.float32]]
    seconds: dict[str, float]

    @property
    def nbytes(self) -> int:
        """Bytes of the signals."""
        return sum(signal.nbytes for signal in self.signals.values())


def decode_clip(clip: Clip, options: DecodeOptions) -> DecodedClip | ClipError:
    """Decode a clip once, and resample it to each rate; or say why that cannot be done."""
    try:
        begin = time.perf_counter()
        _read(clip)
        read = time.perf_counter()
        signal, rate = decode(clip)
        if not options.keep_silent and not signal.any():
            return ClipError(
                SILENCE,
                f"{clip.path}: all of its {len(signal) / rate:.2f} s are zero; "
                "keep such clips with --keep-silent",
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
    """Seconds of the clip as its headers have it, None if it cannot be read."""
    try:
        with open_audio(clip.path) as (file, samples):
            whole = samples / float(file.samplerate) - clip.start_s
    except ClipError:
        return None
    return whole if clip.duration_s is None else min(whole, clip.duration_s)


def _read(clip: Clip) -> None:
    """Bring the file into the system's cache.

    Decoders read in small pieces, which a network file system answers slowly; and so
    the time of reading is known apart from that of decoding.
    """
    try:
        if not clip.path.is_file():
            return
        with clip.path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= _READ_WHOLE:
                while file.read(1 << 20):
                    pass
    except OSError:
        return  # the decoder says what is wrong
