"""Network of EfficientAT: MobileNetV3-large for log-mel spectrograms with one channel.

References
----------
F. Schmid, K. Koutini, G. Widmer, "Efficient large-scale audio tagging via transformer-to-CNN
knowledge distillation", ICASSP 2023.
A. Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Model = Literal["mn04", "mn05", "mn10", "mn20", "mn30", "mn40"]

# Factor of the channels of each published model.
WIDTHS: dict[Model, float] = {
    "mn04": 0.4,
    "mn05": 0.5,
    "mn10": 1.0,
    "mn20": 2.0,
    "mn30": 3.0,
    "mn40": 4.0,
}
CLASSES = 527
NORM_EPS = 1e-3
STEM = 16
HIDDEN = 1280  # hidden units of the classifier


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted residual block, with channels as in the table for width 1.

    Attributes
    ----------
    kernel
        Side of the depthwise filters.
    expanded, channels
        Channels of the depthwise convolution, and of the output.
    excited
        Whether squeeze-and-excitation follows the depthwise convolution.
    hard
        Whether the activation is Hardswish; else it is ReLU.
    stride
        Stride of the depthwise convolution.
    """

    kernel: int
    expanded: int
    channels: int
    excited: bool
    hard: bool
    stride: int


BLOCKS = (
    Block(3, 16, 16, False, False, 1),
    Block(3, 64, 24, False, False, 2),
    Block(3, 72, 24, False, False, 1),
    Block(5, 72, 40, True, False, 2),
    Block(5, 120, 40, True, False, 1),
    Block(5, 120, 40, True, False, 1),
    Block(3, 240, 80, False, True, 2),
    Block(3, 200, 80, False, True, 1),
    Block(3, 184, 80, False, True, 1),
    Block(3, 184, 80, False, True, 1),
    Block(3, 480, 112, True, True, 1),
    Block(3, 672, 112, True, True, 1),
    Block(5, 672, 160, True, True, 2),
    Block(5, 960, 160, True, True, 1),
    Block(5, 960, 160, True, True, 1),
)


def scaled(channels: int, width: float) -> int:
    """``channels * width`` rounded to a multiple of 8, but not below 0.9 times its value.

    These are the rules of MobileNetV3.
    """
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def channels_of(width: float) -> int:
    """Number of channels of the last feature map."""
    return 6 * scaled(BLOCKS[-1].channels, width)


class Convolution(nn.Sequential):
    """Convolution without bias and with zero padding, batch norm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = None,
    ) -> None:
        layers = [
            nn.Conv2d(
                inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(outputs, NORM_EPS),
        ]
        super().__init__(*layers, *([activation()] if activation else []))


class Excitation(nn.Module):
    """Squeeze-and-excitation: two dense layers compute the gain of each channel from the means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scaled(channels, 1 / 4)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (n, channels, bands, frames), weighted; the same shape."""
        gains: Tensor = self.fc2(self.fc1(maps.mean((2, 3))).relu()).sigmoid()
        return maps * gains[:, :, None, None]


class Concurrent(nn.Module):
    """`Excitation` with the published key, which allows for several parallel modules."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([Excitation(channels)])

    def forward(self, maps: Tensor) -> Tensor:
        """See `Excitation`."""
        weighted: Tensor = self.conc_se_layers[0](maps)
        return weighted


class InvertedResidual(nn.Module):
    """1x1 convolution, depthwise convolution, excitation, 1x1 convolution, residual.

    The first convolution is omitted if it would not expand, the excitation if `Block` has none,
    and the residual connection if the shapes differ.
    """

    def __init__(self, block: Block, inputs: int, width: float) -> None:
        super().__init__()
        expanded, outputs = scaled(block.expanded, width), scaled(block.channels, width)
        activation: type[nn.Module] = nn.Hardswish if block.hard else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(Convolution(inputs, expanded, activation=activation))
        layers.append(
            Convolution(expanded, expanded, block.kernel, block.stride, expanded, activation)
        )
        if block.excited:
            layers.append(Concurrent(expanded))
        layers.append(Convolution(expanded, outputs))
        self.block = nn.Sequential(*layers)
        self.residual = block.stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Shape (n, inputs, bands, frames) to (n, outputs, bands / stride, frames / stride)."""
        found: Tensor = self.block(maps)
        return found + maps if self.residual else found


class Network(nn.Module):
    """The published network, with the keys of the published state dicts.

    Parameters
    ----------
    width
        Factor of all channels: 0.4 for mn04, 1.0 for mn10.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = scaled(STEM, width)
        layers: list[nn.Module] = [Convolution(1, channels, 3, 2, activation=nn.Hardswish)]
        for block in BLOCKS:
            layers.append(InvertedResidual(block, channels, width))
            channels = scaled(block.channels, width)
        last = channels_of(width)
        layers.append(Convolution(channels, last, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = scaled(HIDDEN, width)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, hidden),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(hidden, CLASSES),
        )

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Logits of the classes, shape (n, 527).

        Parameters
        ----------
        spectrograms
            Shape (n, 1, 128, frames), float32; see ``efficientat_frontend.py``.
        """
        logits: Tensor = self.classifier(self.features(spectrograms))
        return logits
