"""Grouped matrix products, to which a Winograd convolution reduces."""

from __future__ import annotations

import torch
from torch import Tensor


class Products:
    """Matrix products of vectors at many points with one matrix per point.

    If torch supports it, they are computed by oneDNN as one grouped 1x1 convolution with filters
    that are packed in advance: one call instead of 36. It is also fast on AMD processors, where
    MKL's float32 product (``torch.bmm``) reaches only half of the peak performance.

    Parameters
    ----------
    matrices
        Matrices of shape (points, in, out), float32.
    dtype
        Type of factors and results: float32 or bfloat16.
    rows
        Usual number of rows per call.
    """

    def __init__(self, matrices: Tensor, dtype: torch.dtype, rows: int) -> None:
        self._points, self._inputs, self._outputs = matrices.shape
        self._matrices: Tensor | None = matrices.to(dtype)
        self._packed = pack(matrices, dtype, rows)
        if self._packed is not None:
            self._matrices = None

    def __call__(self, factors: Tensor) -> Tensor:
        """Products of shape (rows, points, out), contiguous, for factors (rows, points, in)."""
        if self._matrices is not None:
            out = factors.new_empty(len(factors), self._points, self._outputs)
            torch.bmm(factors.transpose(0, 1), self._matrices, out=out.transpose(0, 1))
            return out
        image = factors.view(1, len(factors), 1, -1).permute(0, 3, 1, 2)
        found = torch.ops.mkldnn._convolution_pointwise(
            image, self._packed, None, [0, 0], [1, 1], [1, 1], self._points, "none", [], ""
        )
        return found.permute(0, 2, 3, 1).view(len(factors), self._points, self._outputs)  # type: ignore[no-any-return]


def why_slow(dtype: torch.dtype = torch.float32) -> str:
    """Warning if the fast convolutions are not available on this machine; empty if they are."""
    if pack(torch.ones(2, 4, 4), dtype, 3) is not None:
        return ""
    return (
        f"torch {torch.__version__} does not offer oneDNN's grouped products on this processor: "
        "VGGish and OpenL3 take 2 to 3 times as long on it, with the same results up to rounding"
    )


def pack(matrices: Tensor, dtype: torch.dtype, rows: int) -> Tensor | None:
    """The matrices in oneDNN's packed layout; None if torch or the processor lacks support.

    The operators are those to which ``torch.compile`` lowers convolutions on a CPU. They are not
    part of torch's public interface, so their absence must not be an error.
    """
    points, inputs, outputs = matrices.shape
    filters = matrices.transpose(1, 2).reshape(points * outputs, inputs, 1, 1).to(dtype)
    image = [1, points * inputs, 1, rows]
    try:
        packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            filters.to_mkldnn(), [0, 0], [1, 1], [1, 1], points, image
        )
        zeros = torch.zeros(image, dtype=dtype).to(memory_format=torch.channels_last)
        found = torch.ops.mkldnn._convolution_pointwise(
            zeros, packed, None, [0, 0], [1, 1], [1, 1], points, "none", [], ""
        )
        return packed if found.permute(0, 2, 3, 1).is_contiguous() else None
    except (AttributeError, RuntimeError, TypeError):  # missing, unsupported or changed
        return None
