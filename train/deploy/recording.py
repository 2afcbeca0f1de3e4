"""Audio as a trained model receives it, from a file or an array; runs without torch.

The samples are those that the shards of the training data would store: averaged over channels,
resampled, and rounded to 16 bit. Long files are decoded in pieces, so that the memory that a file
takes depends on its length at the model's rate only: 115 MB per hour at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import Resampler, decode, resample
from featreg.datasets.audio.pcm16 import to_pcm16
from featreg.datasets.base import Clip, FeatregError

Signal = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]

LONGEST_S = 12 * 3600.0
"""Longest audio in seconds."""

LONGEST_WITH_FEATURES_S = 4 * 3600.0
"""Longest audio for a model that needs features, whose signals are in memory as a whole."""

# Length of the pieces of a long file, and of the audio around a piece that is resampled with it:
# whole seconds, so that both are whole numbers of samples at any rate.
_PIECE_S = 600
_MARGIN_S = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """The signals that a model needs.

    Attributes
    ----------
    sample_rate
        Rate of the model's audio, in Hz.
    resampler
        Algorithm for conversion to that rate.
    extractors
        Rates and resamplers of its extractors; empty for a model that needs only audio.
    """

    sample_rate: int
    resampler: Resampler
    extractors: tuple[tuple[int, Resampler], ...] = ()

    @property
    def longest_s(self) -> float:
        """Longest audio in seconds."""
        return LONGEST_WITH_FEATURES_S if self.extractors else LONGEST_S


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The signals of one file or array.

    Attributes
    ----------
    audio
        Shape (samples,), at the model's rate.
    duration_s
        Decoded length in seconds.
    signals
        Signal of shape (samples,) by the rate and the resampler of an extractor.
    """

    audio: Samples
    duration_s: float
    signals: Mapping[tuple[int, Resampler], Signal] = field(default_factory=dict)


def recording_of(signal: Signal, rate: int, wanted: Wanted) -> Recording:
    """Return the signals that a model needs, from a mono signal of shape (samples,).

    Raises
    ------
    FeatregError
        If it is longer than `Wanted.longest_s`.
    """
    _check_length(len(signal), rate, wanted)
    return Recording(
        to_pcm16(resample(signal, rate, wanted.sample_rate, wanted.resampler)),
        len(signal) / rate,
        {(r, method): resample(signal, rate, r, method) for r, method in wanted.extractors},
    )


def read_recording(path: Path, wanted: Wanted) -> Recording:
    """Return the signals that a model needs, from an audio file.

    Raises
    ------
    ClipError
        If the file cannot be decoded.
    FeatregError
        If it is longer than `Wanted.longest_s`.
    """
    if wanted.extractors:
        return recording_of(*_decode(path, 0, wanted.longest_s + 1), wanted)
    parts, samples = [], 0
    for part, length, rate in _pieces(path, wanted):
        samples += length
        _check_length(samples, rate, wanted)
        parts.append(part)
    return Recording(np.concatenate(parts) if len(parts) > 1 else parts[0], samples / rate)


def _pieces(path: Path, wanted: Wanted) -> Iterator[tuple[Samples, int, int]]:
    """Yield the audio of consecutive pieces, their length in the file, and the file's rate."""
    start_s, target, last = 0, wanted.sample_rate, False
    while not last:
        before_s = min(start_s, _MARGIN_S)
        asked_s = before_s + _PIECE_S + _MARGIN_S
        signal, rate = _decode(path, start_s - before_s, asked_s)
        last = len(signal) < asked_s * rate
        stop_s = None if last else before_s + _PIECE_S
        audio = to_pcm16(resample(signal, rate, target, wanted.resampler))
        length = len(signal) if stop_s is None else stop_s * rate
        stop = None if stop_s is None else stop_s * target
        yield audio[before_s * target : stop], length - before_s * rate, rate
        start_s += _PIECE_S


def _decode(path: Path, start_s: float, duration_s: float) -> tuple[Signal, int]:
    nothing = np.empty(0, np.uint8)
    return decode(Clip(str(path), path, "test", nothing, nothing, start_s, duration_s))


def _check_length(samples: int, rate: int, wanted: Wanted) -> None:
    if samples > wanted.longest_s * rate:
        raise FeatregError(
            f"{samples:,} samples at {rate} Hz are {samples / rate / 3600:,.1f} h of audio, "
            f"expected at most {wanted.longest_s / 3600:.0f} h; split it, or correct the rate"
        )
