"""Log-mel spectrogram at 16 kHz, the input of the encoders that do not learn their filters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16000
N_FFT = 512
BANDS = 64
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


class LogMel(nn.Module):
    """Log-mel spectrogram of 64 bands, normalized by batch normalization.

    Computed in float32 also under autocast, since bfloat16 is too coarse for power spectra.

    Parameters
    ----------
    hop
        Distance between spectrogram frames, in samples.

    Shape
    -----
    (batch, samples) -> (batch, 1, 64, 1 + samples // hop).
    """

    filters: Tensor
    window: Tensor

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.bn = nn.BatchNorm2d(1)

    def decibels(self, audio: Tensor) -> Tensor:
        """Return the spectrogram before normalization, in dB, >= -100: (batch, 64, frames)."""
        spectrum = torch.stft(audio, N_FFT, self.hop, window=self.window, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(-1)
        return 10 * (self.filters @ power).clamp(min=FLOOR).log10()

    def forward(self, audio: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(audio.device.type, enabled=False):
            normalized: Tensor = self.bn(self.decibels(audio.float())[:, None])
            return normalized
