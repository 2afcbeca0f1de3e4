"""Winograd's F(4x4, 3x3): 3x3 convolutions with a quarter of the multiplications.

A 3-tap filter over 6 inputs gives 4 outputs, which takes 12 multiplications. If filter and inputs
are regarded as polynomials, they can be evaluated at 6 points, multiplied there and interpolated,
which takes 6 multiplications. In two dimensions, a tile of 4x4 outputs takes 36 multiplications
instead of 144; over all channels and tiles these are 36 matrix products. (A. Lavin and S. Gray,
"Fast algorithms for convolutional neural networks", CVPR 2016, section 4.3.)

The points used here are 0, ±sqrt(1/2), ±sqrt(2) and infinity. With coefficients close to 1, the
rounding errors are half of those with the usual points 0, ±1, ±2 and infinity, and about three
times those of a direct convolution.

Images are channels-last and padded: images of height h and width w are stored in arrays of shape
(n, 4 * rows + 2 or more, 4 * columns + 2 or more, channels), starting at [1, 1] and surrounded by
zeros, so that tiles at the edges need no special treatment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import overload

Array = npt.NDArray[Any]
Float = Any  # a scalar in the compiled functions below
Function = TypeVar("Function", bound=Callable[..., Any])

POINTS = 36
TILE = 4  # outputs along a side
# Number of channels processed at a time in `scatter`: a tile of them fits into the L1 cache, and
# a loop of constant length needs no checks. In the last block, surplus channels are discarded.
CHANNELS = 64

_P, _Q = math.sqrt(0.5), math.sqrt(2.0)
_FILTER_AT_POINTS = np.array(
    [
        [1, 0, 0],
        # (1, x, x^2) divided by the product of the differences of x and the other points
        *([1 / n, x / n, x * x / n] for x, n in ((_P, -1.5), (-_P, -1.5), (_Q, 6.0), (-_Q, 6.0))),
        [0, 0, 1],
    ]
)

_P1, _P2, _P3 = np.float32(_P), np.float32(_P**2), np.float32(_P**3)
_Q1, _Q2, _Q3 = np.float32(_Q), np.float32(_Q**2), np.float32(_Q**3)
_SUM = np.float32(_P**2 + _Q**2)  # their product is 1


def _compiled(function: Function) -> Function:
    # Beyond the defaults, allow fused multiply-add and ignore the sign of zero.
    return cast(Function, njit(nogil=True, cache=True, fastmath={"contract", "nsz"})(function))


def _inlined(function: Function) -> Function:
    return cast(Function, njit(inline="always")(function))


def filters_at_points(weight: Array) -> Array:
    """Evaluate filters of shape (out, in, 3, 3) at the 36 points: (36, in, out), float32."""
    g = _FILTER_AT_POINTS
    values = np.einsum("ia,jb,ocab->ijco", g, g, weight.astype(np.float64), optimize=True)
    filters: Array = values.reshape(POINTS, weight.shape[1], weight.shape[0]).astype(np.float32)
    return filters


@_inlined
def _evaluate(
    d0: Float, d1: Float, d2: Float, d3: Float, d4: Float, d5: Float
) -> tuple[Float, ...]:
    """Evaluate six inputs at the six points."""
    even_p, odd_p = d4 - _Q2 * d2, _P1 * (d3 - _Q2 * d1)
    even_q, odd_q = d4 - _P2 * d2, _Q1 * (d3 - _P2 * d1)
    first, last = d0 - _SUM * d2 + d4, d1 - _SUM * d3 + d5
    return first, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, last


@_inlined
def _interpolate(
    m0: Float, m1: Float, m2: Float, m3: Float, m4: Float, m5: Float
) -> tuple[Float, ...]:
    """Interpolate four outputs from their values at the six points."""
    even_p, odd_p = m1 + m2, m1 - m2
    even_q, odd_q = m3 + m4, m3 - m4
    return (
        m0 + even_p + even_q,
        _P1 * odd_p + _Q1 * odd_q,
        _P2 * even_p + _Q2 * even_q,
        _P3 * odd_p + _Q3 * odd_q + m5,
    )


def _copy(target: Array, source: Array) -> None:
    """Copy the common length of two vectors of float32 or bfloat16 (uint16 for numba)."""


@overload(_copy)
def _copy_between(target: Any, source: Any) -> Any:
    def same(target: Any, source: Any) -> None:
        for c in range(min(len(target), len(source))):
            target[c] = source[c]

    def narrow(target: Any, source: Any) -> None:  # round to nearest, ties away from zero
        for c in range(min(len(target), len(source))):
            bits = np.float32(source[c]).view(np.uint32)
            target[c] = np.uint16((bits + np.uint32(0x8000)) >> np.uint32(16))

    def widen(target: Any, source: Any) -> None:
        for c in range(min(len(target), len(source))):
            target[c] = np.uint32(np.uint32(source[c]) << np.uint32(16)).view(np.float32)

    if target.dtype == source.dtype:
        return same
    return narrow if target.dtype == types.uint16 else widen


@_compiled
def direct(
    image: Array, weight: Array, bias: Array, lowest: Float, pool: bool, strip: Array, top: int
) -> None:
    """Direct convolution of a range of rows of a single-channel image.

    With one input channel, Winograd's algorithm saves no time.

    Parameters
    ----------
    image
        Padded image of shape (height + 2, width + 2), float32.
    weight, bias
        Arrays of shapes (9, channels) and (channels,), float32.
    lowest, pool
        See `scatter`.
    strip
        Output of shape (rows, output width + 2 or more, channels), float32, with padded columns:
        the rows of the output from row `top` - 1 on, zeros outside of the image.
    top
        First row of the output to compute, plus 1 (see `strip`).
    """
    side = 2 if pool else 1
    for r in range(strip.shape[0]):
        row = top + r - 1
        if row < 0 or row >= (image.shape[0] - 2) // side:
            strip[r] = 0
            continue
        for column in range((image.shape[1] - 2) // side):
            out = strip[r, 1 + column]
            out[:] = lowest
            for k in range(side * side):
                y, x = side * row + k // side, side * column + k % side
                p0, p1, p2 = image[y, x], image[y, x + 1], image[y, x + 2]
                p3, p4, p5 = image[y + 1, x], image[y + 1, x + 1], image[y + 1, x + 2]
                p6, p7, p8 = image[y + 2, x], image[y + 2, x + 1], image[y + 2, x + 2]
                for c in range(len(bias)):
                    upper = p0 * weight[0, c] + p1 * weight[1, c] + p2 * weight[2, c]
                    middle = p3 * weight[3, c] + p4 * weight[4, c] + p5 * weight[5, c]
                    lower = p6 * weight[6, c] + p7 * weight[7, c] + p8 * weight[8, c]
                    out[c] = max(out[c], upper + middle + lower + bias[c])


@_compiled
def gather(images: Array, values: Array, first: int, rows: int, columns: int) -> None:
    """Evaluate tiles of 6x6 inputs, 4 apart, at the 36 points.

    Parameters
    ----------
    images
        Padded images of shape (n, height, width, channels), float32.
    values
        Output of shape (tiles, 36, channels), float32 or bfloat16 as uint16; `tiles` is a
        multiple of `columns`.
    first
        First row of tiles, counted over all images.
    rows, columns
        Numbers of rows and columns of tiles per image.
    """
    channels = images.shape[3]
    strip = np.empty((6, TILE * columns + 2, channels), np.float32)
    o = np.empty((6, channels), np.float32)
    for r in range(values.shape[0] // columns):
        image = images[(first + r) // rows]
        y = TILE * ((first + r) % rows)
        for x in range(strip.shape[1]):
            i0, i1, i2 = image[y, x], image[y + 1, x], image[y + 2, x]
            i3, i4, i5 = image[y + 3, x], image[y + 4, x], image[y + 5, x]
            s0, s1, s2 = strip[0, x], strip[1, x], strip[2, x]
            s3, s4, s5 = strip[3, x], strip[4, x], strip[5, x]
            for c in range(channels):
                s0[c], s1[c], s2[c], s3[c], s4[c], s5[c] = _evaluate(
                    i0[c], i1[c], i2[c], i3[c], i4[c], i5[c]
                )
        for t in range(columns):
            tile = values[r * columns + t]
            x = TILE * t
            for k in range(6):
                s0, s1, s2 = strip[k, x], strip[k, x + 1], strip[k, x + 2]
                s3, s4, s5 = strip[k, x + 3], strip[k, x + 4], strip[k, x + 5]
                for c in range(channels):
                    o[0, c], o[1, c], o[2, c], o[3, c], o[4, c], o[5, c] = _evaluate(
                        s0[c], s1[c], s2[c], s3[c], s4[c], s5[c]
                    )
                for j in range(6):
                    _copy(tile[6 * k + j], o[j])


@_compiled
def scatter(
    values: Array,
    bias: Array,
    images: Array,
    first: int,
    rows: int,
    columns: int,
    height: int,
    width: int,
    lowest: Float,
    pool: bool,
) -> None:
    """Interpolate outputs from their values at the 36 points.

    Parameters
    ----------
    values, first, rows, columns
        See `gather`.
    bias
        Bias of the outputs, shape (channels,), float32.
    images
        Output of shape (n, height + 2 or more, width + 2 or more, channels), float32, padded.
    height, width
        Size of the output images without padding; tiles may extend beyond it.
    lowest
        Lower bound of the outputs: 0 for a ReLU, -inf for none.
    pool
        Whether to apply 2x2 max pooling.
    """
    side = TILE // 2 if pool else TILE
    i = np.empty((6, CHANNELS), np.float32)
    strip = np.empty((TILE, 6, CHANNELS), np.float32)
    tile = np.empty((TILE, TILE, CHANNELS), np.float32)
    b = np.zeros(CHANNELS, np.float32)
    for r in range(values.shape[0] // columns):
        image = images[(first + r) // rows]
        top = side * ((first + r) % rows)
        for t in range(columns):
            left = side * t
            for start in range(0, values.shape[2], CHANNELS):
                some = slice(start, start + CHANNELS)
                for j in range(6):
                    for k in range(6):
                        _copy(i[k], values[r * columns + t, 6 * k + j, some])
                    s0, s1, s2, s3 = strip[0, j], strip[1, j], strip[2, j], strip[3, j]
                    for c in range(CHANNELS):
                        s0[c], s1[c], s2[c], s3[c] = _interpolate(
                            i[0, c], i[1, c], i[2, c], i[3, c], i[4, c], i[5, c]
                        )
                _copy(b, bias[some])
                for k in range(TILE):
                    s, o = strip[k], tile[k]
                    for c in range(CHANNELS):
                        y0, y1, y2, y3 = _interpolate(
                            s[0, c], s[1, c], s[2, c], s[3, c], s[4, c], s[5, c]
                        )
                        o[0, c], o[1, c] = max(lowest, y0 + b[c]), max(lowest, y1 + b[c])
                        o[2, c], o[3, c] = max(lowest, y2 + b[c]), max(lowest, y3 + b[c])
                for y in range(min(side, height - top)):
                    for x in range(min(side, width - left)):
                        out = image[1 + top + y, 1 + left + x, some]
                        if pool:
                            o0, o1 = tile[2 * y, 2 * x], tile[2 * y, 2 * x + 1]
                            o2, o3 = tile[2 * y + 1, 2 * x], tile[2 * y + 1, 2 * x + 1]
                            for c in range(len(out)):
                                out[c] = max(max(o0[c], o1[c]), max(o2[c], o3[c]))
                        else:
                            _copy(out, tile[y, x])
