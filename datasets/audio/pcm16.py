"""The 16-bit audio that a classifier is trained on, and that it receives in use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCALE = 32767
"""``value = stored / SCALE``: values from -1 to 1 become integers from -32767 to 32767."""


def to_pcm16(signal: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Values as 16-bit integers, rounded to the nearest; those outside [-1, 1] are clipped.

    Parameters
    ----------
    signal
        Any shape, finite. What was decoded lies in [-1, 1]: resampling alone exceeds it.

    Returns
    -------
    The same shape, from -32767 to 32767.
    """
    scaled = np.clip(signal, -1.0, 1.0)
    scaled *= SCALE
    stored: npt.NDArray[np.int16] = np.rint(scaled, out=scaled).astype(np.int16)
    return stored


def from_pcm16(stored: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Values in [-1, 1] from what `to_pcm16` returned; the same shape."""
    signal: npt.NDArray[np.float32] = stored.astype(np.float32) / np.float32(SCALE)
    return signal
