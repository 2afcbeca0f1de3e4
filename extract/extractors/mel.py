"""Mel scales and mel filterbanks of the published front ends."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

MelScale = Literal["htk", "slaney"]
Floats = npt.NDArray[np.float64]

# Slaney's scale (Auditory Toolbox, 1998): 3 mel per 200 Hz up to 1000 Hz, and 27 mel per factor
# of 6.4 above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_MEL_PER_NEPER = 27.0 / np.log(6.4)


def hz_to_mel(hz: npt.ArrayLike, scale: MelScale) -> Floats:
    """Convert frequencies of any shape, in Hz (0 or above), to the mel scale `scale`."""
    f = np.asarray(hz, dtype=np.float64)
    if scale == "htk":
        return np.asarray(1127.0 * np.log1p(f / 700.0))
    above = np.log(np.maximum(f, _BREAK_HZ) / _BREAK_HZ)  # 0 below the break
    return np.asarray(np.minimum(f, _BREAK_HZ) / _HZ_PER_MEL + above * _MEL_PER_NEPER)


def mel_to_hz(mel: npt.ArrayLike, scale: MelScale) -> Floats:
    """Inverse of `hz_to_mel`: mel of any shape to Hz."""
    m = np.asarray(mel, dtype=np.float64)
    if scale == "htk":
        return np.asarray(700.0 * np.expm1(m / 1127.0))
    above = np.exp(np.maximum(m - _BREAK_MEL, 0.0) / _MEL_PER_NEPER)  # 1 below the break
    return np.asarray(np.minimum(m, _BREAK_MEL) * _HZ_PER_MEL * above)


def mel_filterbank(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float,
    scale: MelScale,
    norm: Literal["slaney"] | None,
) -> npt.NDArray[np.float32]:
    """Triangular filters, equally spaced in mel, with edges that are straight in Hz.

    The filters are bitwise identical to those of ``librosa.filters.mel``. (The edges of VGGish's
    filters are straight in mel instead; see ``vggish.py``.)

    Parameters
    ----------
    sample_rate, n_fft
        Bin k of the spectrum lies at ``k * sample_rate / n_fft`` Hz.
    n_mels
        Number of filters.
    fmin, fmax
        Lower edge of the first and upper edge of the last filter, in Hz.
    scale
        ``htk``, 1127 ln(1 + f / 700), or ``slaney``, linear up to 1 kHz, then logarithmic.
    norm
        None: every triangle has height 1. ``slaney``: every triangle has area 1 in Hz.

    Returns
    -------
    Filters of shape (n_mels, n_fft // 2 + 1), float32, 0 or above.
    """
    low, high = hz_to_mel([fmin, fmax], scale)
    corners = mel_to_hz(np.linspace(low, high, n_mels + 2), scale)
    left, peak, right = (corners[i : i + n_mels, None] for i in range(3))
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    rising = (bins - left) / (peak - left)
    falling = (right - bins) / (right - peak)
    filters: npt.NDArray[np.float32]
    filters = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    if norm == "slaney":  # after the rounding, as in librosa
        filters = (filters * (2.0 / (right - left))).astype(np.float32)
    return filters
