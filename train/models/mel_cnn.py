"""A small CNN on a mel spectrogram, which also serves as an example of another encoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from featreg.datasets.base import UsageError

from .base import Encoder
from .log_mel import SAMPLE_RATE, LogMel

HOP = 256  # samples
BLOCKS = 5  # each halves time and frequency


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
        self.front = LogMel(HOP)
        channels = [1, width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.blocks = nn.Sequential(*(_block(*pair) for pair in pairwise(channels))).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]

    def forward(self, audio: Tensor) -> Tensor:
        """Return the embedding, averaged over frequency: shape (batch, T_E, 4 * width)."""
        embedding: Tensor = self.blocks(self.front(audio)).mean(dim=2).transpose(1, 2)
        return embedding


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
