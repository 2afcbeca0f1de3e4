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
LEVELS = 128  # centre frequencies of the first harmonic
STEPS_PER_OCTAVE = 24
C1_HZ = 440.0 * 2 ** (-45 / 12)
FLOOR = 1e-10  # power of -100 dB

Spacing = Literal["exact", "published"]


class HarmonicSTFT(nn.Module):
    """Spectrogram through triangular filters on harmonics, in decibels, normalised.

    The filter of centre frequency f is max(0, 1 - 2 |bin - f| Q / (0.1079 f + 24.7)):
    a bandwidth that follows hearing, and one learned Q for all. Centres are 128 quarter
    tones from C1, times 1 to 6. Always in float32: bfloat16 has no room for decibels of
    power spectra.

    Parameters
    ----------
    spacing
        ``exact``: a transform of 512 samples, its bins where they are, k * 31.25 Hz.
        ``published``: a transform of 513 samples, its bins taken to be at those same
        frequencies although they are k * 16000 / 513 Hz apart; as the published code.

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
        centre = harmonic[:, None] * C1_HZ * 2 ** (level / STEPS_PER_OCTAVE)
        bins = torch.linspace(0, SAMPLE_RATE / 2, BINS, dtype=torch.float64)
        # From bin to centre in halves of the bandwidth at Q = 1; shape (6 * 128, 257).
        distance = 2 * (bins - centre[..., None]).abs() / (0.1079 * centre + 24.7)[..., None]
        self.register_buffer("distance", distance.flatten(0, 1).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.q = nn.Parameter(torch.ones(1))
        self.bn = nn.BatchNorm2d(HARMONICS)

    def decibels(self, audio: Tensor) -> Tensor:
        """The harmonic spectrogram before normalisation, in dB, at least -100."""
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
            normalised: Tensor = self.bn(self.decibels(audio.float()))
            return normalised


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, ReLU, max-pooling.

    ReLU comes after pooling: the maximum of the positive parts is the positive part of
    the maximum, and a quarter of the values is left to do it for.
    """

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, H, W) -> (batch, outputs, H // pool, W // pool)."""
        return F.max_pool2d(self.bn(self.conv(x)), self.pool).relu()


class ResBlock(nn.Module):
    """Two convolutions around a shortcut, ReLU, max-pooling (in the order of `ConvBlock`)."""

    def __init__(self, channels: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn_2 = nn.BatchNorm2d(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) -> (batch, channels, H // pool, W // pool)."""
        y = self.bn_1(self.conv_1(x)).relu()
        y = self.bn_2(self.conv_2(y)) + x
        return F.max_pool2d(y, self.pool).relu()


class HarmonicCNN(Encoder):
    """The published network up to its maximum over time; the rest is `Decoder`.

    Parameters
    ----------
    width
        Channels of the first four blocks; the last three, and the embedding, have twice
        as many. 128 is the published network.
    time_pools
        Pooling over time in the last two blocks: (3, 3) for MagnaTagATune, (2, 2) for
        DCASE 2017, (2, 1) for Speech Commands. All other pooling is by 2.
    samples
        Input length it is trained on, at 16 kHz.
    pad_to
        Zeros are put behind shorter input, up to this length; 0 puts none. With the
        published pooling a second is 128 samples too short for Speech Commands.
    spacing
        See `HarmonicSTFT`.

    Raises
    ------
    UsageError
        If `samples` is too short for one frame of embedding.
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
                f"harmonic_cnn with time_pools {tuple(time_pools)} needs at least "
                f"{(reduction - 1) * HOP} samples, got {samples}: take longer crops or pool less"
            )
        self.front = HarmonicSTFT(spacing)
        self.blocks = nn.Sequential(
            ConvBlock(HARMONICS, width, pools[0]),
            *(ResBlock(width, pool) for pool in pools[1:4]),
            ConvBlock(width, 2 * width, pools[4]),
            *(ResBlock(2 * width, pool) for pool in pools[5:]),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, audio: Tensor) -> Tensor:
        """Embedding of shape (batch, T_E, 2 * width), not negative."""
        if self.pad_to:
            audio = F.pad(audio, (0, at_least(self.pad_to - audio.shape[-1], 0)))
        spectrogram = self.front(audio).contiguous(memory_format=torch.channels_last)
        embedding: Tensor = self.blocks(spectrogram).flatten(2)  # one frequency is left
        return embedding.transpose(1, 2)
