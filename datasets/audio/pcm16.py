"""The 16-bit audio that a classifier receives in training and at inference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCALE = 32767
"""``value = stored / SCALE``: values from -1 to 1 become integers from -32767 to 32767."""


def to_pcm16(signal: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Convert values to 16-bit integers, rounded to the nearest; clip those outside [-1, 1].

    Parameters
    ----------
    signal
        Any shape, finite.

    Returns
    -------
    The same shape, from -32767 to 32767.
    """
    scaled = np.clip(signal, -1.0, 1.0)
    scaled *= SCALE
    stored: npt.NDArray[np.int16] = np.rint(scaled, out=scaled).astype(np.int16)
    return stored


def from_pcm16(stored: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Convert the result of `to_pcm16` to values in [-1, 1]; the same shape."""
    signal: npt.NDArray[np.float32] = stored.astype(np.float32) / np.float32(SCALE)
    return signal
