"""A small modern encoder: inverted residual blocks on a log-mel spectrogram.

A. Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1 (MobileNetV3-Large), with one
input channel, as F. Schmid et al., "Efficient large-scale audio tagging via transformer-to-CNN
knowledge distillation", ICASSP 2023, use it for audio.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from featreg.datasets.base import UsageError

from .base import Encoder
from .log_mel import N_FFT, SAMPLE_RATE, LogMel

HOP = 160  # samples, 10 ms
REDUCTION = 32  # spectrogram frames per embedding frame


class Block(NamedTuple):
    """An inverted residual block, with the channels of the table for 16 channels in the stem.

    Attributes
    ----------
    kernel
        Side of the depthwise filters.
    expanded, channels
        Channels of the depthwise convolution, and of the output.
    excited
        Whether squeeze-and-excitation follows the depthwise convolution.
    activation
        Activation after all but the last convolution.
    stride
        Stride of the depthwise convolution over frequency and time.
    """

    kernel: int
    expanded: int
    channels: int
    excited: bool
    activation: type[nn.Module]
    stride: int


BLOCKS = (
    Block(3, 16, 16, False, nn.ReLU, 1),
    Block(3, 64, 24, False, nn.ReLU, 2),
    Block(3, 72, 24, False, nn.ReLU, 1),
    Block(5, 72, 40, True, nn.ReLU, 2),
    Block(5, 120, 40, True, nn.ReLU, 1),
    Block(5, 120, 40, True, nn.ReLU, 1),
    Block(3, 240, 80, False, nn.Hardswish, 2),
    Block(3, 200, 80, False, nn.Hardswish, 1),
    Block(3, 184, 80, False, nn.Hardswish, 1),
    Block(3, 184, 80, False, nn.Hardswish, 1),
    Block(3, 480, 112, True, nn.Hardswish, 1),
    Block(3, 672, 112, True, nn.Hardswish, 1),
    Block(5, 672, 160, True, nn.Hardswish, 2),
    Block(5, 960, 160, True, nn.Hardswish, 1),
    Block(5, 960, 160, True, nn.Hardswish, 1),
)
LAST = 960  # channels of the embedding


class MobileCNN(Encoder):
    """MobileNetV3-Large on 64 mel bands, without its classifier.

    Parameters
    ----------
    width
        Number of channels of the stem. All other numbers of channels of the published table,
        whose stem has 16, are multiplied by ``width / 16``, rounded to a multiple of 8. The
        embedding has 60 * `width` dimensions, rounded in the same way.
    samples
        Length of the training crops, in samples at 16 kHz. The hop of the embedding is 0.32 s.

    Raises
    ------
    UsageError
        If `samples` is too short for one frame of the spectrogram.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, width: int = 8, samples: int = 80000) -> None:
        super().__init__()
        if samples <= N_FFT // 2:
            raise UsageError(
                f"mobile_cnn needs crops of at least {N_FFT // 2 + 1} samples, got {samples}; "
                "use a longer --crop"
            )
        self.samples = samples
        self.frames = -(-(1 + samples // HOP) // REDUCTION)
        self.dim = _scaled(LAST, width)
        self.front = LogMel(HOP)
        channels = _scaled(16, width)
        layers: list[nn.Module] = [_convolution(1, channels, 3, 2, activation=nn.Hardswish)]
        for block in BLOCKS:
            layers.append(InvertedResidual(block, channels, width))
            channels = _scaled(block.channels, width)
        layers.append(_convolution(channels, self.dim, activation=nn.Hardswish))
        self.blocks = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, audio: Tensor) -> Tensor:
        """Return the embedding, averaged over frequency, of shape (batch, T_E, dim)."""
        embedding: Tensor = self.blocks(self.front(audio)).mean(dim=2).transpose(1, 2)
        return embedding


class InvertedResidual(nn.Module):
    """1x1 convolution, depthwise convolution, excitation, 1x1 convolution, residual connection.

    The first convolution is omitted if it would not expand, the excitation if `Block` has none,
    and the residual connection if the shapes differ.
    """

    def __init__(self, block: Block, inputs: int, width: int) -> None:
        super().__init__()
        expanded, outputs = _scaled(block.expanded, width), _scaled(block.channels, width)
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(_convolution(inputs, expanded, activation=block.activation))
        layers.append(
            _convolution(expanded, expanded, block.kernel, block.stride, expanded, block.activation)
        )
        if block.excited:
            layers.append(Excitation(expanded))
        layers.append(_convolution(expanded, outputs))
        self.layers = nn.Sequential(*layers)
        self.residual = block.stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, inputs, H, W) to (batch, outputs, H / stride, W / stride), rounded up."""
        found: Tensor = self.layers(maps)
        return found + maps if self.residual else found


class Excitation(nn.Module):
    """Squeeze-and-excitation: the gain of each channel, computed from the means of all.

    J. Hu, L. Shen, G. Sun, "Squeeze-and-excitation networks", CVPR 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, channels // 4)
        self.fc_1 = nn.Linear(channels, squeezed)
        self.fc_2 = nn.Linear(squeezed, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape, (batch, channels, H, W), each times its gain."""
        gains: Tensor = nn.functional.hardsigmoid(self.fc_2(self.fc_1(maps.mean((2, 3))).relu()))
        return maps * gains[:, :, None, None]


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Module:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def _scaled(channels: int, width: int) -> int:
    """`channels` * `width` / 16 rounded to a multiple of 8, at least 8, not below 0.9 of its value.

    These are the rules of MobileNetV3.
    """
    exact = channels * width / 16
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded
