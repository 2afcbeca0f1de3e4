"""Batches that are read while earlier ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

AHEAD = 2
"""Batches for each thread that wait to be used."""


class ReadAhead:
    """Iterates over what `read` gives for each of `keys`, in their order.

    Threads, not processes: what takes time in reading needs no lock of Python's, and
    sending a batch from one process to another takes longer than reading it.

    Parameters
    ----------
    read
        Called as ``read(key, pin)``, from several threads; `pin` says that tensors should
        lie in pinned memory, from which a GPU takes them while the CPU goes on.
    keys
        Iterated over anew each time.
    threads
        That read; with 0, a batch is read when it is asked for.
    """

    def __init__(self, read: Callable[..., Any], keys: Iterable[Any], threads: int) -> None:
        self._read, self._keys, self._threads = read, keys, threads

    def __iter__(self) -> Iterator[Any]:
        pin = torch.cuda.is_available()
        if not self._threads:
            for key in self._keys:
                yield self._read(key, pin)
            return
        ahead: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="reader") as pool:
            try:
                for key in self._keys:
                    ahead.append(pool.submit(self._read, key, pin))
                    if len(ahead) > AHEAD * self._threads:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:  # after an error, or a break: nobody waits for the others
                for future in ahead:
                    future.cancel()
