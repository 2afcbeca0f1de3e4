"""A small CNN on a mel spectrogram, which also serves as an example of another encoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from featreg.datasets.base import UsageError

from .base import Encoder

SAMPLE_RATE = 16000
N_FFT = 512
HOP = 256  # samples
BANDS = 64
BLOCKS = 5  # each halves time and frequency
FLOOR = 1e-10  # power of -100 dB


def mel_filters() -> Tensor:
    """Return triangular filters of height 1 on the HTK mel scale, 0 to 8000 Hz: (64, 257)."""
    top = 2595 * torch.log10(torch.tensor(1 + SAMPLE_RATE / 2 / 700, dtype=torch.float64))
    steps = torch.linspace(0, 1, BANDS + 2, dtype=torch.float64)
    edges = 700 * (10 ** (steps * top / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    low, center, high = (edges[i : i + BANDS, None] for i in range(3))
    rise, fall = (bins - low) / (center - low), (high - bins) / (high - center)
    return torch.minimum(rise, fall).clamp(min=0).float()


class MelCNN(Encoder):
    """Five blocks of convolution, batch normalization, max pooling and ReLU.

    Parameters
    ----------
    width
        Number of channels of the first block. The other blocks have 2, 4, 4 and 4 times as
        many channels; the embedding has 4 * `width` dimensions.
    samples
        Length of the training crops, in samples at 16 kHz. The hop of the embedding is
        0.512 s.

    Raises
    ------
    UsageError
        If `samples` is too short for one embedding frame.
    """

    sample_rate = SAMPLE_RATE
    filters: Tensor
    window: Tensor

    def __init__(self, width: int = 32, samples: int = 80000) -> None:
        super().__init__()
        self.dim = 4 * width
        self.samples = samples
        self.frames = (1 + samples // HOP) // 2**BLOCKS
        if self.frames < 1:
            raise UsageError(
                f"mel_cnn needs crops of at least {(2**BLOCKS - 1) * HOP} samples, got "
                f"{samples}; use a longer --crop"
            )
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.bn = nn.BatchNorm2d(1)
        channels = [1, width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.blocks = nn.Sequential(*(_block(*pair) for pair in pairwise(channels))).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]

    def decibels(self, audio: Tensor) -> Tensor:
        """Return the mel spectrogram in dB, >= -100, of shape (batch, 64, 1 + samples // 256)."""
        spectrum = torch.stft(audio, N_FFT, HOP, window=self.window, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(-1)
        return 10 * (self.filters @ power).clamp(min=FLOOR).log10()

    def forward(self, audio: Tensor) -> Tensor:
        """Return the embedding, averaged over frequency: shape (batch, T_E, 4 * width)."""
        with torch.autocast(audio.device.type, enabled=False):
            spectrogram = self.bn(self.decibels(audio.float())[:, None])
        embedding: Tensor = self.blocks(spectrogram).mean(dim=2).transpose(1, 2)
        return embedding


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
