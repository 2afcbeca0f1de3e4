"""The 3x3 convolutions that VGG-like networks are made of, and what runs them.

A stack of them takes images of shape (n, height, width), float32, and gives maps of shape
(n, height', width', channels), float32: `PlainStack` on any device, as torch does it, and
`WinogradStack` on a CPU, more than twice as fast for equal results but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..extractors.base import Precision


class Stack(Protocol):
    """Convolutions one after the other."""

    def __call__(self, images: Tensor, then: Callable[[Tensor], Tensor] = torch.clone) -> Tensor:
        """What `then` makes of the maps, image by image.

        Parameters
        ----------
        images
            Shape (n, height, width), float32.
        then
            Takes maps of shape (any of the n, height', width', channels), float32, which are
            written over afterwards; what it returns is put together along the first axis.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A 3x3 convolution over an image with zeros around it, and what follows.

    Attributes
    ----------
    weight
        Shape (out, in, 3, 3), float32.
    bias
        Shape (out,), float32.
    relu
        Whether negative outputs become 0.
    pool
        Whether the maximum of each 2x2 outputs stands for them; an odd last row or column
        is dropped.
    """

    weight: Tensor
    bias: Tensor
    relu: bool = True
    pool: bool = False


def exact() -> AbstractContextManager[None]:
    """Convolutions of torch's as they are asked for.

    Left alone, a GPU rounds float32 factors to 10 bits and sums in any order.
    """
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


class PlainStack:
    """Convolutions one after the other, as torch does them, with all of a batch at once."""

    def __init__(
        self, layers: Sequence[Convolution], device: str = "cpu", precision: Precision = "float32"
    ) -> None:
        dtype = getattr(torch, precision)
        self._layers = [
            Convolution(
                layer.weight.to(device, dtype, memory_format=torch.channels_last),
                layer.bias.to(device, dtype),
                layer.relu,
                layer.pool,
            )
            for layer in layers
        ]

    def __call__(self, images: Tensor, then: Callable[[Tensor], Tensor] = torch.clone) -> Tensor:
        """See `Stack`."""
        maps = images[:, None].to(self._layers[0].weight)
        with exact():
            for layer in self._layers:
                maps = apply(layer, maps)
        return then(maps.permute(0, 2, 3, 1).float())


def apply(layer: Convolution, maps: Tensor) -> Tensor:
    """Maps of shape (n, in, height, width) to (n, out, height', width')."""
    maps = F.conv2d(maps, layer.weight, layer.bias, padding=1)
    if layer.relu:
        maps = maps.relu_()
    return F.max_pool2d(maps, 2) if layer.pool else maps


def make_stack(
    layers: Sequence[Convolution], height: int, width: int, device: str, precision: Precision
) -> Stack:
    """The fastest way to run `layers` over images of one channel on `device`."""
    if device != "cpu":
        return PlainStack(layers, device, precision)
    from .winograd import WinogradStack

    return WinogradStack(layers, height, width, precision)
