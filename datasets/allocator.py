"""The C library's allocator, set for programs that take and free large arrays all the time."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_memory() -> None:
    """Let this process keep the memory that it frees, for its next arrays.

    glibc gives large arrays back to the system as soon as they are freed, and fetches the
    next ones page by page, each cleared first: a third of a network's time. What is kept
    is bounded by the most that was in use at once. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
