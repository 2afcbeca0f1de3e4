"""Too little memory, the machine's or a GPU's, as a line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from featreg.datasets.base import FeatregError

# How torch words it where it has no exception of its own: on the CPU, and in cuDNN.
_WORDS = ("DefaultCPUAllocator", "out of memory")


@contextmanager
def enough_memory(name: str, remedy: str) -> Iterator[None]:
    """Name what is too large for the memory that there is.

    Parameters
    ----------
    name
        Of the model or run.
    remedy
        What to do then.

    Raises
    ------
    FeatregError
        If memory ran out in the block.
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
    return known or any(word in str(error) for word in _WORDS)
