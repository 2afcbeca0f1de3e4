"""Detection of errors caused by a lack of memory, threads, open files or disk space."""

from __future__ import annotations

import errno

_NUMBERS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EFBIG)
_TEXTS = (
    "can't start new thread",
    "failed to map segment",  # of a library that is imported
    "annot allocate memory",
    "No usable temporary directory",
)


def scarcity(error: BaseException) -> str:
    """One line with the error and a remedy, if a resource is exhausted; else empty."""
    scarce = (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno in _NUMBERS)
        or any(text in str(error) for text in _TEXTS)
    )
    if not scarce:
        return ""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return (
        f"{what}; the machine lacks memory, processes, open files or space for temporary files "
        "(ulimit -a shows the limits): raise the limit or use fewer --workers, then run the same "
        "command again; finished work is kept"
    )
