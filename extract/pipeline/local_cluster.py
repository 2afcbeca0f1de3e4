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

# Number of attempts to start a local cluster.
_STARTS = 3

# Numbers of open files required by this process (with libraries and decoders), and per worker.
_FILES, _FILES_PER_WORKER = 48, 8

_NO_GUARD = (
    'a script that calls featreg must do so under `if __name__ == "__main__":`, because every '
    "worker imports the script"
)


def local_cluster(workers: int, gpus: int) -> SpecCluster:
    """Start a scheduler and workers on this machine; retry if a process dies during the start."""
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
    """Raise this process's limit of open files if necessary; raise an error if that is impossible.

    With too few open files, Dask waits forever for workers that cannot connect.
    """
    needed = _FILES + _FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise FeatregError(
            f"expected a limit of at least {needed} open files, found {hard}; raise the limit "
            f"with `ulimit -n {needed}`, or use fewer --workers"
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _start_cluster(workers: int, gpus: int) -> SpecCluster:
    """Start a scheduler and workers; each worker runs one job at a time, on one GPU if any."""
    from distributed import Nanny, Scheduler, SpecCluster

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = visible.split(",") if visible else [str(k) for k in range(gpus)]

    def options(worker: int) -> dict[str, Any]:
        env = {}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = devices[worker % gpus]
        # No memory limit: the networks use the memory, and Dask could not free any of it.
        return {
            "nthreads": 1,
            "env": env,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
        }

    with _signals_deferred():
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
def _signals_deferred() -> Iterator[None]:
    """Defer SIGINT and SIGTERM, because a partly started cluster cannot be closed.

    Ctrl-C sends SIGINT to every process of the terminal. Processes started in this block inherit
    the blocked signal; this process handles it and ends the others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Start multiprocessing's resource tracker before, because its start unblocks the signal.
    resource_tracker.ensure_running()
    arrived: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if arrived:
            signal.raise_signal(signal.SIGTERM)
