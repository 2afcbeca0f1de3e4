"""Arithmetic on tensor sizes that remains dynamic in an exported model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def at_least(size: Any, least: int) -> Any:
    """Return the larger of `size` and `least`.

    Python's ``max`` would be evaluated for the example input of the export and its result
    stored as a constant. `size` is an int in eager mode, a symbol under ``torch.export`` and a
    tensor under ``torch.jit.trace``.
    """
    if isinstance(size, Tensor):
        return size.clamp(min=least)
    return torch.sym_max(size, least)  # type: ignore[no-untyped-call]
