"""The harmonic CNN of Won et al. 2020: learned harmonic filters and a residual CNN.

M. Won, S. Chun, O. Nieto, X. Serra, "Data-driven harmonic filters for audio
representation learning", ICASSP 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featreg.datasets.base import UsageError

from .base import Encoder
from .sizes import at_least

SAMPLE_RATE = 16000
HOP = 256  # samples
BINS = 257
HARMONICS = 6
LEVELS = 128  # center frequencies of the first harmonic
STEPS_PER_OCTAVE = 24
C1_HZ = 440.0 * 2 ** (-45 / 12)
FLOOR = 1e-10  # power of -100 dB

Spacing = Literal["exact", "published"]


class HarmonicSTFT(nn.Module):
    """Normalized spectrogram in decibels from triangular filters on harmonics.

    The filter of center frequency f has the weight max(0, 1 - 2 |g - f| Q / (0.1079 f + 24.7))
    at frequency g. The bandwidth is proportional to the equivalent rectangular bandwidth of
    hearing, with one learned Q for all filters. The center frequencies are 128 quarter tones
    from C1, multiplied by 1 to 6. Computed in float32 also under autocast, since bfloat16 is
    too coarse for power spectra.

    Parameters
    ----------
    spacing
        ``exact``: an FFT of 512 samples, with bins at k * 31.25 Hz.
        ``published``: as the published code, an FFT of 513 samples, whose bins are assumed at
        k * 31.25 Hz although they are at k * 16000 / 513 Hz.

    Shape
    -----
    (batch, samples) -> (batch, 6, 128, 1 + samples // 256): harmonic, level, frame.
    """

    window: Tensor
    distance: Tensor

    def __init__(self, spacing: Spacing = "exact") -> None:
        super().__init__()
        self.n_fft = 512 if spacing == "exact" else 513
        level = torch.arange(LEVELS, dtype=torch.float64)
        harmonic = torch.arange(1, HARMONICS + 1, dtype=torch.float64)
        center = harmonic[:, None] * C1_HZ * 2 ** (level / STEPS_PER_OCTAVE)
        bins = torch.linspace(0, SAMPLE_RATE / 2, BINS, dtype=torch.float64)
        # From bin to center, relative to half the bandwidth at Q = 1; shape (6, 128, 257).
        distance = 2 * (bins - center[..., None]).abs() / (0.1079 * center + 24.7)[..., None]
        self.register_buffer("distance", distance.flatten(0, 1).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.q = nn.Parameter(torch.ones(1))
        self.bn = nn.BatchNorm2d(HARMONICS)

    def decibels(self, audio: Tensor) -> Tensor:
        """Return the harmonic spectrogram before normalization, in dB, >= -100."""
        spectrum = torch.stft(
            audio, self.n_fft, HOP, window=self.window, pad_mode="reflect", return_complex=True
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        filters = (1 - self.q * self.distance).relu()
        level = 10 * (filters @ power).clamp(min=FLOOR).log10()
        return level.view(-1, HARMONICS, LEVELS, level.shape[-1])

    def forward(self, audio: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(audio.device.type, enabled=False):
            normalized: Tensor = self.bn(self.decibels(audio.float()))
            return normalized


class ConvBlock(nn.Module):
    """Convolution, batch normalization, ReLU and max pooling.

    ReLU is applied after pooling, which gives the same result for a quarter of the
    computation: the maximum of positive parts is the positive part of the maximum.
    """

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, H, W) to (batch, outputs, H // pool, W // pool)."""
        return F.max_pool2d(self.bn(self.conv(x)), self.pool).relu()


class ResBlock(nn.Module):
    """Two convolutions with a shortcut, ReLU and max pooling (ordered as in `ConvBlock`)."""

    def __init__(self, channels: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn_2 = nn.BatchNorm2d(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to (batch, channels, H // pool, W // pool)."""
        y = self.bn_1(self.conv_1(x)).relu()
        y = self.bn_2(self.conv_2(y)) + x
        return F.max_pool2d(y, self.pool).relu()


class HarmonicCNN(Encoder):
    """The published network up to its maximum over time; the other layers are in `Decoder`.

    Parameters
    ----------
    width
        Number of channels of the first four blocks; the last three blocks and the embedding
        have twice as many. The published network has 128.
    time_pools
        Pooling factors over time in the last two blocks: (3, 3) for MagnaTagATune, (2, 2) for
        DCASE 2017, (2, 1) for Speech Commands. All other pooling factors are 2.
    samples
        Length of the training crops, in samples at 16 kHz.
    pad_to
        Length to which shorter input is zero-padded at its end, in samples; 0 disables
        padding. With the published pooling, Speech Commands needs 16128 samples, 128 more
        than one second.
    spacing
        See `HarmonicSTFT`.

    Raises
    ------
    UsageError
        If `samples` is too short for one embedding frame.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        width: int = 128,
        time_pools: Sequence[int] = (2, 2),
        samples: int = 80000,
        pad_to: int = 0,
        spacing: Spacing = "exact",
    ) -> None:
        super().__init__()
        pools = [(2, 2)] * 5 + [(2, time) for time in time_pools]
        reduction = math.prod(time for _, time in pools)
        self.dim = 2 * width
        self.samples = samples
        self.pad_to = pad_to
        self.frames = (1 + max(samples, pad_to) // HOP) // reduction
        if self.frames < 1:
            raise UsageError(
                f"harmonic_cnn with time_pools {tuple(time_pools)} needs crops of at least "
                f"{(reduction - 1) * HOP} samples, got {samples}; use a longer --crop"
            )
        self.front = HarmonicSTFT(spacing)
        self.blocks = nn.Sequential(
            ConvBlock(HARMONICS, width, pools[0]),
            *(ResBlock(width, pool) for pool in pools[1:4]),
            ConvBlock(width, 2 * width, pools[4]),
            *(ResBlock(2 * width, pool) for pool in pools[5:]),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, audio: Tensor) -> Tensor:
        """Return the embedding, nonnegative, of shape (batch, T_E, 2 * width)."""
        if self.pad_to:
            audio = F.pad(audio, (0, at_least(self.pad_to - audio.shape[-1], 0)))
        spectrogram = self.front(audio).contiguous(memory_format=torch.channels_last)
        embedding: Tensor = self.blocks(spectrogram).flatten(2)  # of one frequency
        return embedding.transpose(1, 2)
