"""Front ends of OpenL3: spectrograms of one second in decibels relative to the maximum.

There are two front ends. The network was trained with that of kapre 0.1, here called ``trained``.
The released package openl3 0.4 uses a different one, here called ``openl3-0.4``, whose embeddings
are the commonly used ones. The cosine similarity of the two embeddings is about 0.97.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from .mel import mel_filterbank

InputRepr = Literal["mel256", "mel128", "linear"]
FrontEndName = Literal["openl3-0.4", "trained"]
Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 48000
WINDOW = SAMPLE_RATE  # samples of an input of the network
FRAME_HOP = 242
GROUP = 32  # mel bands that are filtered together
FLOOR = np.float32(1e-10)  # minimum of the magnitudes
FLOOR_DB = np.float32(-80)  # minimum in dB relative to the maximum


@dataclass(frozen=True, slots=True, eq=False)
class FrontEnd:
    """Computes spectrograms of windows of one second.

    Attributes
    ----------
    n_fft
        Length of a spectrogram frame in samples, with a periodic Hann window.
    frames
        Number of spectrogram frames; the end of the window is padded with zeros if necessary.
    before
        Number of zeros before the window.
    filters
        Groups of adjacent mel bands: the range of their bins, and their weights of shape
        (bins, bands). If empty, the spectrogram is linear.
    squared
        Whether the filters are applied to squared magnitudes, followed by a square root.
    """

    n_fft: int
    frames: int
    before: int
    filters: tuple[tuple[slice, Tensor], ...]
    squared: bool

    @property
    def bands(self) -> int:
        """Number of bands of a spectrogram."""
        return sum(weights.shape[1] for _, weights in self.filters) or self.n_fft // 2 + 1

    def __call__(self, windows: Floats) -> Floats:
        """Spectrograms of a batch of windows.

        Parameters
        ----------
        windows
            Windows of shape (n, 48000), float32.

        Returns
        -------
        Spectrograms of shape (n, bands, frames), float32, -80 to 0 dB. Silence is 0 dB everywhere.
        """
        length = self.n_fft + FRAME_HOP * (self.frames - 1)
        padded = np.zeros((len(windows), max(length, self.before + WINDOW)), np.float32)
        padded[:, self.before : self.before + WINDOW] = windows
        framed = sliding_window_view(padded[:, :length], self.n_fft, axis=1)[:, ::FRAME_HOP]
        magnitudes = np.abs(scipy.fft.rfft(framed * hann(self.n_fft)))
        if self.filters:
            magnitudes = self._filter(magnitudes)
        # The factor is that for powers, although these are magnitudes: it was used in training.
        decibels = 10 * np.log10(np.maximum(magnitudes, FLOOR))
        decibels -= decibels.max(axis=(1, 2), keepdims=True)
        spectrograms: Floats = np.maximum(decibels, FLOOR_DB).transpose(0, 2, 1)
        return spectrograms

    def _filter(self, magnitudes: Floats) -> Floats:
        values = torch.from_numpy(magnitudes**2 if self.squared else magnitudes)
        groups = [values[:, :, bins] @ weights for bins, weights in self.filters]
        filtered: Floats = torch.cat(groups, dim=2).numpy()
        return np.sqrt(filtered) if self.squared else filtered


@cache
def make_front_end(input_repr: InputRepr, name: FrontEndName) -> FrontEnd:
    """The front end `name` for the input representation `input_repr`."""
    if input_repr == "linear":  # equal in both front ends
        n_fft = 512
        return FrontEnd(n_fft, 1 + (WINDOW - n_fft) // FRAME_HOP, 0, (), squared=False)
    n_fft, bands = 2048, int(input_repr.removeprefix("mel"))
    frames = -(-WINDOW // FRAME_HOP)
    nyquist = SAMPLE_RATE / 2
    if name == "openl3-0.4":
        before = 0
        filters = mel_filterbank(SAMPLE_RATE, n_fft, bands, 0.0, nyquist, "slaney", "slaney")
    else:
        before = (n_fft + FRAME_HOP * (frames - 1) - WINDOW) // 2
        filters = mel_filterbank(SAMPLE_RATE, n_fft, bands, 0.0, nyquist, "htk", None)
        # Weights that sum to 1. Two of 256 bands are between bins and have no weights.
        filters /= np.maximum(filters.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return FrontEnd(n_fft, frames, before, _grouped(filters), name == "trained")


def _grouped(filters: npt.NDArray[Any]) -> tuple[tuple[slice, Tensor], ...]:
    # Most weights are zeros: grouping leaves an eighth of the multiplications.
    groups = []
    for first in range(0, len(filters), GROUP):
        group = filters[first : first + GROUP].T.astype(np.float32)
        used = np.flatnonzero(group.any(axis=1))
        bins = slice(int(used[0]), int(used[-1]) + 1)
        groups.append((bins, torch.from_numpy(group[bins])))
    return tuple(groups)


@cache
def hann(n: int) -> Floats:
    """The published window of `n` samples, bitwise identical.

    The last bits matter: they determine the values of almost silent bands, such as all bands above
    20 kHz in most recordings, and after the conversion to decibels they change the embedding
    by 1e-4.
    """
    angles = np.float32(2 * np.pi) * np.arange(n, dtype=np.float32) / np.float32(n)
    window: Floats = np.float32(0.5) - np.float32(0.5) * _cosine(angles)
    return window


# The float32 cosine of Eigen 3.4, as in TensorFlow's published builds: pi / 2 as a sum of four
# numbers, the first with few bits, and polynomials for cosine and sine up to pi / 4.
_HALF_PI = (1.5703125, 4.8398971557617188e-4, -1.6286503523588182e-7, -5.5644315544167711e-11)
_COSINE = (2.4372266125283204e-5, -1.3886520173400640e-3, 4.1666619479656219e-2, -0.5, 1.0)
_SINE = (-1.9592341140837040e-4, 8.3326873655616852e-3, -1.6666662039822983e-1, 0.0)


def _cosine(angles: Floats) -> Floats:
    quarters = np.rint(angles * np.float32(2 / np.pi))
    rest = angles
    for part in _HALF_PI:
        rest = rest - quarters * np.float32(part)
    square = rest * rest
    cosine = _polynomial(_COSINE, square)
    sine = _polynomial(_SINE, square) * rest + rest
    turned: Floats = np.choose(quarters.astype(int) % 4, (cosine, -sine, -cosine, sine))
    return turned


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    value = np.zeros_like(x)
    for coefficient in coefficients:
        value = value * x + np.float32(coefficient)
    return value
