"""Settings of the C library's memory allocator for programs that often allocate large arrays."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_memory() -> None:
    """Keep freed memory in this process for its next arrays.

    By default, glibc returns large arrays to the system as soon as they are freed, and the system
    clears every page that it hands out again, which takes a third of the time of a network. The
    memory that is kept never exceeds the peak memory in use. Other C libraries are not changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
