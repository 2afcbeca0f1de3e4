"""A small log-mel spectrogram of a clip as a JPEG image."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.image import imsave
from torch.nn.functional import adaptive_max_pool1d, pad

from featreg.datasets.audio.pcm16 import from_pcm16

from ..models.log_mel import N_FFT, LogMel

COLUMNS = 400
"""Maximum width of the image, in pixels; its height is the number of mel bands, 64."""

RANGE_DB = 70
"""Range of the colors, below the loudest value of the clip."""

_HOP = 160  # 10 ms
_FRAMES = 16 * COLUMNS  # of a clip longer than 64 s, with the hop above; more take memory


def spectrogram_jpeg(samples: npt.NDArray[np.int16]) -> bytes:
    """Return the image of a clip; time runs to the right, and 0 to 8000 Hz upwards.

    Each column shows the maximum of its frames, so that short events remain visible. In clips
    longer than 64 s, the frames are not contiguous.

    Parameters
    ----------
    samples
        Samples at 16 kHz, of shape (samples,).
    """
    signal = torch.from_numpy(from_pcm16(samples))
    signal = pad(signal, (0, max(0, N_FFT - len(signal))))
    decibels = LogMel(max(_HOP, len(signal) // _FRAMES)).decibels(signal[None])[0]
    if decibels.shape[1] > COLUMNS:
        decibels = adaptive_max_pool1d(decibels, COLUMNS)
    top = float(decibels.max())
    image = io.BytesIO()
    imsave(
        image,
        decibels.numpy(),
        vmin=top - RANGE_DB,
        vmax=top,
        cmap="magma",
        origin="lower",
        format="jpg",
        pil_kwargs={"quality": 85},
    )
    return image.getvalue()
