"""A network that hangs is ended with its process, as one that crashes ends by itself.

No call into a C library can be stopped from within its process, and one that holds
Python's lock keeps every other thread from running. The standard library's faulthandler
has a thread that needs no lock.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

# How its last words begin, in every version of Python.
_WORDS = "Timeout ("


class Watchdog:
    """Ends this process when a call lasts too long; use as ``with watchdog(): call()``.

    There is one to a process at a time: faulthandler has one clock.

    Parameters
    ----------
    limit_s
        Seconds that a call may last.
    words
        Where it says what was being called; nowhere by default, for a process that shares
        its terminal.
    """

    def __init__(self, limit_s: float, words: IO[str] | None = None) -> None:
        self._limit_s = min(limit_s, threading.TIMEOUT_MAX)
        self._words = words

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run the block, for so many seconds at most."""
        words = self._words or _nowhere()
        faulthandler.dump_traceback_later(self._limit_s, exit=True, file=words)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def is_last_word(complaints: str) -> bool:
    """Whether a process that complained so was ended by its watchdog."""
    return any(line.startswith(_WORDS) for line in complaints.splitlines())


@cache
def _nowhere() -> IO[str]:
    return open(os.devnull, "w")  # open as long as the process lives
