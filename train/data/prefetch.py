"""Reading of batches in background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

AHEAD = 2
"""Batches that each thread reads in advance."""


class Prefetcher:
    """Iterable over the results of `read` for each of `keys`, in their order.

    It uses threads instead of processes: reading spends most of its time without Python's
    global lock, and sending a batch to another process takes longer than reading it.

    Parameters
    ----------
    read
        Called as ``read(key, pin)``, from several threads; `pin` asks for tensors in pinned
        memory, from which a GPU copies asynchronously.
    keys
        Iterated over from the start each time.
    threads
        Number of reading threads; with 0, each batch is read when it is requested.
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
            finally:  # after an error or a break, the other batches are not needed
                for future in ahead:
                    future.cancel()
