"""Multithreading whose results do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``[function(item) for item in items]`` on ``torch.get_num_threads()`` threads.

    In each of them, torch itself uses a single thread, so that results do not depend on the
    number of threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [function(item) for item in items]
    return list(_pool(threads).map(function, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # torch.set_num_threads affects the calling thread, and all threads that read the number for
    # the first time afterwards. Each thread of the pool therefore reads the number and then sets
    # its own; after all have done so, this thread restores the number for later threads.
    started = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="network", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)
    return pool
