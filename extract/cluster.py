"""Runs jobs one after another here, or many at a time on Dask: the same function either way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dask.system import CPU_COUNT

from featreg.datasets.base import FeatregError, UsageError

if TYPE_CHECKING:
    from distributed import SpecCluster

Job = TypeVar("Job")
Account = TypeVar("Account")


@dataclass(frozen=True, slots=True)
class Workers:
    """How many processes work, and with how many threads each.

    Attributes
    ----------
    count
        Processes; 1 works in this one, without Dask.
    threads
        Threads of each one's network, so that count x threads <= cores.
    scheduler
        Address of a Dask cluster to work on in place of local processes.
    gpus
        GPUs shared out among the local workers, 0 for none.
    """

    count: int
    threads: int
    scheduler: str | None = None
    gpus: int = 0


def plan_workers(jobs: int, asked: int | None, scheduler: str | None, gpus: int = 0) -> Workers:
    """Workers for a number of jobs.

    Parameters
    ----------
    jobs
        Shards to do.
    asked
        What the user wants, None to decide here: one worker a core, or one a GPU.
    scheduler
        Address of a Dask cluster, None for this machine.
    gpus
        GPUs in use, 0 for none.
    """
    if asked is not None and asked < 1:
        raise UsageError(f"--workers {asked}: expected at least 1")
    if scheduler is not None:
        if asked is not None:
            raise UsageError("--workers and --scheduler: a cluster brings its own workers")
        return Workers(0, 1, scheduler)
    count = asked if asked is not None else min(gpus or CPU_COUNT, max(1, jobs))
    return Workers(count, max(1, CPU_COUNT // count), gpus=gpus)


def run_jobs(
    function: Callable[[Job], Account], jobs: Sequence[Job], workers: Workers
) -> Iterator[tuple[Job, Account | Exception]]:
    """Each job with what `function` returned for it, or the exception that ended it.

    Jobs come back as they finish. `function` and its jobs travel by pickle, so
    both must be small: whatever is large is named by its path.
    """
    if workers.count == 1:
        for job in jobs:
            try:
                yield job, function(job)
            except Exception as error:
                yield job, error
        return
    yield from _run_on_dask(function, jobs, workers)


def _run_on_dask(
    function: Callable[[Job], Account], jobs: Sequence[Job], workers: Workers
) -> Iterator[tuple[Job, Account | Exception]]:
    from distributed import Client, as_completed

    with ExitStack() as stack:
        address = workers.scheduler or stack.enter_context(_local_cluster(workers))
        try:
            client = stack.enter_context(Client(address, timeout=10))
        except OSError as error:
            raise FeatregError(
                f"--scheduler {address}: no Dask scheduler answers ({error})"
            ) from None
        futures = {client.submit(function, job, pure=False): job for job in jobs}
        for future in as_completed(list(futures)):
            failed = future.exception()
            yield futures[future], future.result() if failed is None else failed
            future.release()


def _local_cluster(workers: Workers) -> SpecCluster:
    """A scheduler and workers on this machine, one job at a time each, one GPU each."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    # glibc would give the networks' large arrays back to the system after every batch, and
    # fetch them again page by page: a third of the time. Read when a process starts.
    environ = "distributed.nanny.pre-spawn-environ"
    keep_memory = {"MALLOC_MMAP_MAX_": 0, "MALLOC_TRIM_THRESHOLD_": 1 << 40}
    dask.config.set({environ: {**dask.config.get(environ), **keep_memory}})

    def options(worker: int) -> dict[str, Any]:
        env = {"CUDA_VISIBLE_DEVICES": str(worker % workers.gpus)} if workers.gpus else {}
        return {"nthreads": 1, "env": env, "silence_logs": logging.CRITICAL}

    return SpecCluster(
        workers={k: {"cls": Nanny, "options": options(k)} for k in range(workers.count)},
        scheduler={"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1"}},
        silence_logs=logging.CRITICAL,
    )


def count_gpus(device: str) -> int:
    """GPUs to use for ``--device``: all that there are for ``auto``, none for ``cpu``.

    Raises
    ------
    FeatregError
        If ``cuda`` is asked for and there is none.
    """
    if device == "cpu":
        return 0
    import torch

    found = torch.cuda.device_count()
    if device == "cuda" and not found:
        raise FeatregError(
            "--device cuda: torch sees no GPU; install a CUDA build of torch, or use --device cpu"
        )
    return found
