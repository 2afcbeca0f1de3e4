"""Stacks of 3x3 convolutions on a CPU by Winograd's algorithm (see `kernels`)."""

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

# Number of tiles per matrix product: large enough for efficient products, small enough for inputs
# and outputs to stay in the cache between `gather`, the product and `scatter`.
BLOCK = 200


class WinogradStack:
    """A sequence of convolutions.

    The shapes of the matrix products do not depend on the number of images or threads, so that
    the result for an image is always bitwise identical.

    Parameters
    ----------
    layers
        At least two convolutions, the first with one input channel.
    height, width
        Size of the images.
    precision
        Precision of the factors and results of the matrix products; all else is float32.
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
            # If there are fewer images than usual, the rest of the batch is computed and ignored.
            margined = F.pad(images, (1, 1, 1, 1)).numpy()
            for image, out in zip(margined, space.maps[0], strict=False):
                # The output of the first convolution is the largest array: compute it in strips.
                for row, rows in second.blocks(1):
                    direct(image, *self._first, space.strip, TILE * row)
                    second.block(space.strip[None], 0, out[None], row, rows, space)
            for layer, maps, out in zip(others, space.maps[:-1], space.maps[1:], strict=True):
                for row, rows in layer.blocks(len(maps)):
                    layer.block(maps, row, out, row, rows, space)
            return then(torch.from_numpy(space.maps[-1])[: len(images), 1:-1, 1:-1])


def lowest(convolution: Convolution) -> np.float32:
    """Lower bound of the outputs."""
    bound: np.float32 = np.float32(0 if convolution.relu else -np.inf)
    return bound


class _Layer:
    """A convolution of images of fixed size.

    Attributes
    ----------
    shape
        Height and width, including padding, and number of channels of an input image.
    height, width, outputs
        Height, width and number of channels of an output image, without padding.
    columns, tiles
        Number of columns of tiles, and total number of tiles, per image.
    """

    def __init__(
        self, convolution: Convolution, height: int, width: int, dtype: torch.dtype
    ) -> None:
        side = 2 if convolution.pool else 1
        self.height, self.width = height // side, width // side
        # Outputs that pooling drops need no tiles.
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
        """Pack the filters for blocks of this number of images."""
        _, rows = self.blocks(images)[0]
        self._product = Products(self._filters, self._dtype, rows * self.columns)

    def blocks(self, images: int) -> list[tuple[int, int]]:
        """Divide the rows of tiles of `images` images into blocks: first row and number of rows."""
        rows = images * self._rows
        step = -(-rows // max(1, round(rows * self.columns / BLOCK)))
        return [(row, min(step, rows - row)) for row in range(0, rows, step)]

    def block(
        self, images: Array, source: int, out: Array, target: int, rows: int, space: _Space
    ) -> None:
        """Convolve `rows` rows of tiles of `images` from row `source` to row `target` of `out`."""
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
    """Work arrays of a thread, allocated once because new memory is slow.

    Attributes
    ----------
    strip
        Part of the first convolution's output that a block of the second one needs.
    maps
        Padded outputs of the other convolutions.
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
        """Array for inputs at the points, shape (tiles, 36, channels)."""
        return self._factors[: tiles * POINTS * channels].view(tiles, POINTS, channels)


def as_array(values: Tensor) -> Array:
    """View of a tensor for numba; bfloat16, which numba does not support, becomes uint16."""
    bits = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
    array: Array = bits.numpy()
    return array
