"""Conversion of out-of-memory errors of CPU and GPU to a `FeatregError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from featreg.datasets.base import FeatregError

# Parts of torch's messages where it has no exception class of its own: on the CPU, in cuDNN.
_MESSAGES = ("DefaultCPUAllocator", "out of memory")


@contextmanager
def enough_memory(name: str, remedy: str) -> Iterator[None]:
    """Raise a `FeatregError` if the block runs out of memory.

    Parameters
    ----------
    name
        Name of the model or run, for the message.
    remedy
        What the user can do, for the message.

    Raises
    ------
    FeatregError
        If the block runs out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _ran_out(error):
            raise
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        raise FeatregError(f"{name}: out of {where}; {remedy}") from None


def _ran_out(error: Exception) -> bool:
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(message in str(error) for message in _MESSAGES)
