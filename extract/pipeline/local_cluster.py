"""A Dask scheduler and its workers on this machine."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from featreg.datasets.base import FeatregError

if TYPE_CHECKING:
    from distributed import SpecCluster

# How often the start of a local cluster is tried.
_STARTS = 3

# Open files that this process, its libraries and its decoders need, and those for each worker.
_FILES, _FILES_PER_WORKER = 48, 8

_NO_GUARD = (
    'a script that calls featreg must do so under `if __name__ == "__main__":`, because every '
    "worker imports the script"
)


def local_cluster(workers: int, gpus: int) -> SpecCluster:
    """A scheduler and workers on this machine; started again if a process dies meanwhile."""
    _check_descriptors(workers)
    for _ in range(_STARTS):
        try:
            return _start_cluster(workers, gpus)
        except RuntimeError as error:
            reason = error
    script = getattr(sys.modules["__main__"], "__file__", None)
    hint = f"; {_NO_GUARD}" if script else ""
    raise FeatregError(f"no workers could be started: {str(reason).rstrip('.')}{hint}")


def _check_descriptors(workers: int) -> None:
    """Raise this process's limit of open files as far as it may, and refuse one that is too low.

    Below it, Dask waits without end for workers that cannot open their connections.
    """
    needed = _FILES + _FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise FeatregError(
            f"a process may open {hard} files here, expected at least {needed}; raise the limit "
            f"with `ulimit -n {needed}`, or give fewer --workers"
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _start_cluster(workers: int, gpus: int) -> SpecCluster:
    """A scheduler and workers, one job at a time each, one GPU each."""
    from distributed import Nanny, Scheduler, SpecCluster

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = visible.split(",") if visible else [str(k) for k in range(gpus)]

    def options(worker: int) -> dict[str, Any]:
        env = {}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = devices[worker % gpus]
        # Memory is the networks', not Dask's: it has nothing that it could drop.
        return {
            "nthreads": 1,
            "env": env,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
        }

    with _undisturbed():
        return SpecCluster(
            workers={k: {"cls": Nanny, "options": options(k)} for k in range(workers)},
            scheduler={
                "cls": Scheduler,
                "options": {
                    "dashboard": False,
                    "dashboard_address": "127.0.0.1:0",
                    "host": "127.0.0.1",
                },
            },
            silence_logs=logging.CRITICAL,
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off SIGINT and SIGTERM, for half a cluster cannot be closed.

    Ctrl-C reaches every process of the terminal. What starts in here never hears of it:
    this process decides, and ends the others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # As it starts, multiprocessing's tracker would let the signal through again.
    resource_tracker.ensure_running()
    arrived: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        if arrived:
            signal.raise_signal(signal.SIGTERM)
