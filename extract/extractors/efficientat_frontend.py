"""Front end of EfficientAT: a log-mel spectrogram with Kaldi's mel filters.

F. Schmid, K. Koutini, G. Widmer, "Efficient large-scale audio tagging via transformer-to-CNN
knowledge distillation", ICASSP 2023, section 4.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from .base import Signal
from .mel import hz_to_mel

SAMPLE_RATE = 32000
PRE_EMPHASIS = np.float32(0.97)
N_FFT = 1024
WINDOW = 800
HOP = 320
BANDS = 128
MAX_HZ = 15000.0
LOG_OFFSET = np.float32(1e-5)
# Shorter signals are padded with zeros, because half a transform is reflected at both ends.
SHORTEST = N_FFT // 2 + 2

Floats = npt.NDArray[np.float32]

# Number of frames transformed at once: their spectra stay in the cache.
_BLOCK = 128
# Number of frames whose bands are summed in parallel, to use the processor's vector instructions.
_LANES = 8


def mel_filters() -> npt.NDArray[np.float64]:
    """Kaldi's mel filters from 0 to 15 kHz, shape (128, 512).

    The filters are triangles of height 1 whose edges are straight in mel. The bin at 16 kHz is
    omitted, because its weights are all 0.
    """
    corners = np.linspace(0.0, hz_to_mel(MAX_HZ, "htk"), BANDS + 2)[:, None]
    left, top, right = corners[:-2], corners[1:-1], corners[2:]
    bins = hz_to_mel(np.arange(N_FFT // 2) * (SAMPLE_RATE / N_FFT), "htk")
    rising = (bins - left) / (top - left)
    falling = (right - bins) / (right - top)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


_TAPER = torch.from_numpy(np.hanning(WINDOW).astype(np.float32))
_FILTERS = mel_filters().astype(np.float32)
# First bin of each band, and the first after it.
_FIRST = np.argmax(_FILTERS > 0, axis=1)
_AFTER = _FILTERS.shape[1] - np.argmax(_FILTERS[:, ::-1] > 0, axis=1)


def spectrogram_frames(samples: int) -> int:
    """Number of spectrogram frames of a signal of `samples` samples."""
    return 1 + (max(samples, SHORTEST) - 2) // HOP


def log_mel(signal: Signal, start: int, stop: int) -> Floats:
    """Frames `start` to `stop` - 1 of the log-mel spectrogram of a signal.

    With y[t] = x[t + 1] - 0.97 x[t], frame j is (ln(m + 1e-5) + 4.5) / 5 for the 128 mel
    powers m of the 800 samples of y around y[320 j] (symmetric Hann window, transform of
    length 1024); y is reflected at its ends.

    Parameters
    ----------
    signal
        Signal of shape (samples,), float32 in [-1, 1], at 32 kHz.
    start, stop
        Range of frames, 0 <= start < stop <= ``spectrogram_frames(len(signal))``.

    Returns
    -------
    Spectrogram of shape (128, stop - start), float32.
    """
    signal = np.pad(signal, (0, max(0, SHORTEST - len(signal))))
    # One sample more than the last frame needs, for the reflection of the first frame.
    low, high = HOP * start - WINDOW // 2, HOP * (stop - 1) + WINDOW // 2 + 1
    first, last = max(low, 0), min(high, len(signal) - 1)
    samples = signal[first:last] * -PRE_EMPHASIS
    samples += signal[first + 1 : last + 1]
    samples = np.pad(samples, (first - low, high - last), mode="reflect")
    frames = torch.from_numpy(samples).unfold(0, WINDOW, HOP)
    loudness = np.empty((BANDS, len(frames)), np.float32)
    # The phase of the transform is not used, so the samples can be at its beginning.
    padded = torch.zeros(min(_BLOCK, len(frames)), N_FFT)
    for block in range(0, len(frames), _BLOCK):
        some = frames[block : block + _BLOCK]
        torch.mul(some, _TAPER, out=padded[: len(some), :WINDOW])
        spectra = torch.view_as_real(torch.fft.rfft(padded[: len(some)])).numpy()
        _sum_bands(spectra, _FILTERS, _FIRST, _AFTER, loudness[:, block : block + _BLOCK])
    np.log(loudness, out=loudness)
    loudness += np.float32(4.5)
    loudness *= np.float32(0.2)
    return loudness


def _plain_sum_bands(spectra: Any, filters: Any, first: Any, after: Any, mel: Any) -> None:
    """Write the power in each band plus the offset of the logarithm to `mel` (bands, frames).

    `spectra` has shape (frames, bins, 2): real and imaginary parts.
    """
    power = np.zeros((filters.shape[1], _LANES), np.float32)
    total = np.empty(_LANES, np.float32)
    for start in range(0, spectra.shape[0], _LANES):
        lanes = min(_LANES, spectra.shape[0] - start)
        for j in range(lanes):
            spectrum = spectra[start + j]
            for k in range(power.shape[0]):
                power[k, j] = spectrum[k, 0] * spectrum[k, 0] + spectrum[k, 1] * spectrum[k, 1]
        for band in range(filters.shape[0]):
            for j in range(_LANES):
                total[j] = LOG_OFFSET
            for k in range(first[band], after[band]):
                for j in range(_LANES):
                    total[j] += filters[band, k] * power[k, j]
            for j in range(lanes):
                mel[band, start + j] = total[j]


# Each band has only a few bins: 97 % of the multiplications of a dense product would be by zero.
_sum_bands = cast(Any, njit(nogil=True, cache=True, fastmath={"contract"})(_plain_sum_bands))
