"""Arithmetic on sizes that stays open when a model is exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def at_least(size: Any, least: int) -> Any:
    """The larger of `size` and `least`.

    Python's ``max`` would decide by the example that a model is exported with, and write
    the decision into the file. A size is a number here, a symbol under ``torch.export``,
    a tensor under ``torch.jit.trace``.
    """
    if isinstance(size, Tensor):
        return size.clamp(min=least)
    return torch.sym_max(size, least)  # type: ignore[no-untyped-call]
