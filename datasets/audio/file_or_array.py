"""Conversion of a file or an array of samples to a mono signal."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import Clip, UsageError
from .decode import RATES, SHORTEST_S, decode, downmix
from .levels import PEAK, cancellation, too_loud

FileOrArray = str | PathLike[str] | npt.ArrayLike

# Divisors of integer samples, as in libsndfile.
_FULL_SCALE = {"int16": 1 << 15, "int32": 1 << 31}


def mono_signal(
    audio: FileOrArray, sample_rate: int | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a file, or convert an array; average over the channels.

    Parameters
    ----------
    audio
        The path of a file, or an array of shape (samples,) or (samples, channels): floats,
        nominally in [-1, 1] and at most 8, or int16 or int32, which are divided by 2^15 or 2^31.
    sample_rate
        Sample rate of an array in Hz; not used for a file.

    Returns
    -------
    Samples of shape (samples,), float32, and their rate in Hz.

    Raises
    ------
    ClipError
        If the file cannot be decoded; see `decode`.
    UsageError
        If an array has no sample rate, is not audio, or its channels cancel.
    """
    if isinstance(audio, (str, PathLike)):
        nothing = np.empty(0, np.uint8)
        return decode(Clip(str(audio), Path(audio), "test", nothing, nothing))
    rate = _checked_rate(sample_rate)
    array = _checked_array(audio)
    scale = _FULL_SCALE.get(array.dtype.name, 1)
    with np.errstate(over="ignore"):  # overflow gives infinity, which is rejected below
        channels = array.astype(np.float32).reshape(len(array), -1) / np.float32(scale)
    signal = downmix(channels)
    if len(signal) < SHORTEST_S * rate:
        raise UsageError(
            f"audio: expected at least {SHORTEST_S * 1000:.0f} ms, found {len(signal)} samples at "
            f"{rate} Hz"
        )
    if not np.isfinite(signal).all():
        at = int(np.flatnonzero(~np.isfinite(signal))[0])
        raise UsageError(f"audio: sample {at} ({at / rate:.3f} s) is not a finite number")
    loudest, peak = float(np.abs(channels).max()), float(np.abs(signal).max())
    if peak > PEAK:
        raise UsageError(f"audio: {too_loud(peak)}")
    if channels.shape[1] > 1 and (reason := cancellation(peak, loudest)):
        raise UsageError(f"audio: {reason}")
    return signal, rate


def _checked_rate(sample_rate: Any) -> int:
    if sample_rate is None:
        raise UsageError("audio: an array needs its sample rate; pass sample_rate in Hz")
    try:
        if RATES[0] <= sample_rate <= RATES[1] and int(sample_rate) == sample_rate:
            return int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(
        f"sample_rate: expected a whole number from {RATES[0]} to {RATES[1]} Hz, "
        f"found {sample_rate!r}"
    )


def _checked_array(audio: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on a GPU
        raise UsageError(f"audio: {type(audio).__name__} is no array of samples: {error}") from None
    if array.dtype.kind != "f" and array.dtype.name not in _FULL_SCALE:
        raise UsageError(
            "audio: expected floats in [-1, 1], int16 or int32, or the path of a file; found "
            f"{type(audio).__name__} of type {array.dtype}"
        )
    if array.ndim not in (1, 2):
        raise UsageError(
            f"audio: expected shape (samples,) or (samples, channels), found {array.shape}"
        )
    if array.size == 0:
        raise UsageError(f"audio: an array of shape {array.shape} holds no samples")
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise UsageError(
            f"audio: expected shape (samples, channels), found {array.shape}, which has more "
            "channels than samples; pass audio.T if the channels come first"
        )
    return array
