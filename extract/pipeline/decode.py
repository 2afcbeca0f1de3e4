"""A clip as the extractors receive it. Runs in a child process (see `child_process`): no torch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import Resampler, check_format, decode, length, resample
from featreg.datasets.audio.files import open_audio
from featreg.datasets.base import Clip, ClipError

# Stage at which a clip of nothing but zeros fails.
SILENCE = "silence"

# Longer files are read while they are decoded: a decoder need not begin at their start.
_READ_WHOLE = 1 << 28


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Rates to which every clip is resampled, in Hz, and the resampler; whether silence is kept."""

    rates: tuple[int, ...]
    resampler: Resampler
    keep_silent: bool


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A clip as every extractor receives it: one signal in [-1, 1] for each rate."""

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
    """Seconds of the clip, None if it cannot be read.

    As the file declares them where that is plausible; else they are counted, which takes as long
    as decoding does.
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
