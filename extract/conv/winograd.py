"""Stacks of 3x3 convolutions on a CPU, by Winograd's algorithm (see `winograd_kernels`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..extractors.base import Precision
from .grouped_matmul import Products
from .kernels import POINTS, TILE, Array, direct, filters_at_points, gather, scatter
from .make_stack import Convolution
from .threads import in_threads

# Tiles in one product of matrices: enough to keep the arithmetic busy, few enough for
# inputs and outputs to stay in the cache between `gather`, product and `scatter`.
BLOCK = 200


class WinogradStack:
    """Convolutions one after the other.

    An image goes through products of the same shapes whatever the number of images and
    of threads, so that it always gives the same bits.

    Parameters
    ----------
    layers
        At least two, the first of them for images of one channel.
    height, width
        Of the images.
    precision
        Of the products' factors and results; all else is float32.
    """

    def __init__(
        self, layers: Sequence[Convolution], height: int, width: int, precision: Precision
    ) -> None:
        dtype = getattr(torch, precision)
        first = layers[0]
        weight = first.weight.flatten(1).T.contiguous().numpy()
        self._first = weight, first.bias.numpy(), lowest(first), first.pool
        if first.pool:
            height, width = height // 2, width // 2
        self._layers: list[_Layer] = []
        for convolution in layers[1:]:
            layer = _Layer(convolution, height, width, dtype)
            self._layers.append(layer)
            height, width = layer.height, layer.width
        self._together = max(1, round(BLOCK / self._layers[-1].tiles))
        for layer in self._layers:
            layer.prepare(1 if layer is self._layers[0] else self._together)
        self._dtype = dtype
        self._thread = threading.local()

    def __call__(self, images: Tensor, then: Callable[[Tensor], Tensor] = torch.clone) -> Tensor:
        """See `Stack`; `then` runs on several threads."""
        chunks = torch.split(images, self._together)
        return torch.cat(in_threads(partial(self._run, then), chunks))

    def _run(self, then: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if not hasattr(self._thread, "space"):
            self._thread.space = _Space(self._layers, self._together, self._dtype)
        space: _Space = self._thread.space
        second, *others = self._layers
        with torch.inference_mode():
            # Where there are fewer images, those of before are computed again and dropped.
            margined = F.pad(images, (1, 1, 1, 1)).numpy()
            for image, out in zip(margined, space.maps[0], strict=False):
                # The first convolution's output is the largest array of all: never whole.
                for row, rows in second.blocks(1):
                    direct(image, *self._first, space.strip, TILE * row)
                    second.block(space.strip[None], 0, out[None], row, rows, space)
            for layer, maps, out in zip(others, space.maps[:-1], space.maps[1:], strict=True):
                for row, rows in layer.blocks(len(maps)):
                    layer.block(maps, row, out, row, rows, space)
            return then(torch.from_numpy(space.maps[-1])[: len(images), 1:-1, 1:-1])


def lowest(convolution: Convolution) -> np.float32:
    """What lower outputs are raised to."""
    bound: np.float32 = np.float32(0 if convolution.relu else -np.inf)
    return bound


class _Layer:
    """One convolution of images of one size.

    Attributes
    ----------
    shape
        Height and width, margin included, and channels of an array for an input image.
    height, width, outputs
        Height, width and channels of an output image, without margin.
    columns, tiles
        Tiles across an image, and all of them.
    """

    def __init__(
        self, convolution: Convolution, height: int, width: int, dtype: torch.dtype
    ) -> None:
        side = 2 if convolution.pool else 1
        self.height, self.width = height // side, width // side
        # What pooling would drop needs no tiles.
        self._rows = -(-side * self.height // TILE)
        self.columns = -(-side * self.width // TILE)
        self.tiles = self._rows * self.columns
        self.outputs, self.inputs = convolution.weight.shape[:2]
        self.shape = (
            max(TILE * self._rows, height) + 2,
            max(TILE * self.columns, width) + 2,
            self.inputs,
        )
        self._filters = torch.from_numpy(filters_at_points(convolution.weight.numpy()))
        self._dtype = dtype
        self._bias = convolution.bias.numpy()
        self._lowest = lowest(convolution)
        self._pool = convolution.pool

    def prepare(self, images: int) -> None:
        """Lay the filters out for blocks of so many images."""
        _, rows = self.blocks(images)[0]
        self._product = Products(self._filters, self._dtype, rows * self.columns)

    def blocks(self, images: int) -> list[tuple[int, int]]:
        """Rows of tiles in so many images, cut into blocks: the first one and how many."""
        rows = images * self._rows
        step = -(-rows // max(1, round(rows * self.columns / BLOCK)))
        return [(row, min(step, rows - row)) for row in range(0, rows, step)]

    def block(
        self, images: Array, source: int, out: Array, target: int, rows: int, space: _Space
    ) -> None:
        """Convolve rows of tiles of `images` from `source` on into those of `out` from `target`."""
        tiles = rows * self.columns
        factors = space.factors(tiles, self.inputs)
        gather(images, as_array(factors), source, self._rows, self.columns)
        scatter(
            as_array(self._product(factors)),
            self._bias,
            out,
            target,
            self._rows,
            self.columns,
            self.height,
            self.width,
            self._lowest,
            self._pool,
        )


class _Space:
    """The arrays that one thread works in, made once: fresh memory is slow.

    Attributes
    ----------
    strip
        What a block of the second convolution sees of the first one's output.
    maps
        The outputs of the others, with margin.
    """

    def __init__(self, layers: Sequence[_Layer], images: int, dtype: torch.dtype) -> None:
        second, *others = layers
        _, rows = second.blocks(1)[0]
        self.strip = np.zeros((TILE * rows + 2, *second.shape[1:]), np.float32)
        last = layers[-1]
        shapes = [layer.shape for layer in others]
        shapes.append((last.height + 2, last.width + 2, last.outputs))
        self.maps = [np.zeros((images, *shape), np.float32) for shape in shapes]
        size = POINTS * max(
            rows * layer.columns * layer.inputs
            for layer in layers
            for _, rows in layer.blocks(1 if layer is second else images)
        )
        self._factors = torch.empty(size, dtype=dtype)

    def factors(self, tiles: int, channels: int) -> Tensor:
        """Room for inputs at the points, shape (tiles, 36, channels)."""
        return self._factors[: tiles * POINTS * channels].view(tiles, POINTS, channels)


def as_array(values: Tensor) -> Array:
    """The same memory for numba, which knows no bfloat16 and sees uint16."""
    bits = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
    array: Array = bits.numpy()
    return array
