"""Execution of jobs in this process or by Dask workers, with the same function.

Jobs are sent compressed, a limited number at a time, and return only a small summary: neither the
scheduler nor this process ever holds audio or features.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from dask.system import CPU_COUNT

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import warn

from .local_cluster import local_cluster

if TYPE_CHECKING:
    from distributed import Client

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")

# Maximum number of jobs submitted at a time: more than the workers of any cluster, but few enough
# that millions of jobs do not use much of the scheduler's memory.
_WINDOW = 4096

# Time limit in seconds for the first worker of a cluster to appear.
_PATIENCE_S = 60

# Time limit in seconds for a connection to a scheduler.
_CONNECT_S = 10.0

_SETTINGS = {
    # A job whose worker died is given to one other worker, not to four: a clip that crashes its
    # worker would crash all of them.
    "distributed.scheduler.allowed-failures": 1,
    # Jobs take minutes: do not queue them at a busy worker while another one is idle.
    "distributed.scheduler.worker-saturation": 1.0,
    # Dask's own measurements, up to a hundred times per second in each worker, are not used.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
}


@dataclass(frozen=True, slots=True)
class Workers:
    """Number of worker processes and their resources.

    Attributes
    ----------
    count
        Number of worker processes; 0 to work in this process, without Dask.
    threads
        Threads of each worker's network, such that count x threads <= cores; 1 if there are more
        GPUs than cores.
    scheduler
        Address of a Dask cluster to use instead of local processes.
    gpus
        Number of GPUs distributed among the local workers; 0 for none.
    """

    count: int
    threads: int
    scheduler: str | None = None
    gpus: int = 0


def plan_workers(
    jobs: int, asked: int | None, scheduler: str | None, gpus: int = 0, alone: bool = True
) -> Workers:
    """Choose the workers for a number of jobs.

    Parameters
    ----------
    jobs
        Number of jobs.
    asked
        Requested number of workers; one per core, or one per GPU, if None. The number is limited
        to one per core, or one per GPU.
    scheduler
        Address of a Dask cluster; None for this machine.
    gpus
        Number of GPUs to use; 0 for none.
    alone
        Whether a single worker runs in its own process, too, because jobs may crash it.
    """
    if asked is not None and asked < 1:
        raise UsageError(f"--workers {asked}: expected at least 1")
    if scheduler is not None:
        if asked is not None:
            raise UsageError("--workers cannot be used with --scheduler")
        return Workers(0, 0, scheduler)
    most = max(CPU_COUNT, gpus)
    if asked is None:
        count = min(gpus or CPU_COUNT, max(1, jobs))
    elif asked <= most:
        count = asked
    else:
        count = most
        warn(f"--workers {asked}: expected at most {most}, one per core; using {most}")
    threads = max(1, CPU_COUNT // count)
    return Workers(0 if count == 1 and not alone else count, threads, gpus=gpus)


def threads_here() -> int:
    """Number of threads of the Dask worker in this process; 1 outside of a worker."""
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return 1


def still_wanted() -> bool:
    """Whether the job that a Dask worker runs in this thread has not been cancelled.

    A job that waits for its turn behind another one cannot be stopped when its run ends.
    """
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return True
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state != "cancelled"


def run_jobs(
    function: Callable[[Job], Outcome], jobs: Sequence[Job], workers: Workers
) -> Iterator[tuple[Job, Outcome | Exception]]:
    """Run jobs, and yield each job with its result or exception, in the order of completion.

    Parameters
    ----------
    function
        Function of a job. It is pickled with the job, which should refer to large data by path.
    jobs
        Jobs to run.
    workers
        Workers to use.

    Raises
    ------
    FeatregError
        If there are jobs, and the cluster cannot be reached or the connection is lost.
    """
    if jobs and (workers.count or workers.scheduler):
        with _connect(workers) as client:
            yield from _run_on(client, function, jobs)
        return
    for job in jobs:
        try:
            outcome: Outcome | Exception = function(job)
        except Exception as error:
            outcome = error
        yield job, outcome


def _run_on(
    client: Client, function: Callable[[Job], Outcome], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Outcome | Exception]]:
    from distributed import as_completed

    rest = iter(jobs)
    running: dict[Any, Job] = {}
    finished = as_completed()

    def submit() -> None:
        for job in islice(rest, _WINDOW - len(running)):
            packed = pack(function, job)
            with _naming_the_loss():
                future = client.submit(_work, packed, pure=False)
                running[future] = job
                finished.add(future)

    submit()
    for future in finished:
        job = running.pop(future)
        with _naming_the_loss():
            failed = future.exception()
            outcome = future.result() if failed is None else failed
            if future.status in ("lost", "cancelled"):
                raise CancelledError
            future.release()
        submit()
        yield job, outcome


@contextmanager
def _naming_the_loss() -> Iterator[None]:
    """Convert the various exceptions that Dask raises if the scheduler is lost."""
    try:
        yield
    except Exception as error:
        raise FeatregError(
            "the connection to the Dask scheduler is lost; finished shards are kept: start a "
            "scheduler, and run the same command again to resume"
        ) from error


def pack(function: Callable[[Job], Outcome], job: Job) -> bytes:
    """Pickle and compress a job."""
    return zlib.compress(pickle.dumps((function, job), protocol=5), 1)


def _work(packed: bytes) -> Any:
    """Run a job on a worker."""
    function, job = pickle.loads(zlib.decompress(packed))
    return function(job)


@contextmanager
def _connect(workers: Workers) -> Iterator[Client]:
    """A client of the requested cluster, with at least one worker."""
    import dask
    from distributed import Client

    _silence_logs()
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        address = workers.scheduler or stack.enter_context(
            local_cluster(workers.count, workers.gpus)
        )
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECT_S))
        except (OSError, ValueError) as error:
            raise FeatregError(
                f"--scheduler {address}: cannot connect to a Dask scheduler ({error})"
            ) from None
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except (TimeoutError, asyncio.TimeoutError):  # the same class since Python 3.11
            raise FeatregError(
                f"{address}: no worker within {_PATIENCE_S} s; start some with "
                f"`dask worker {address}`"
            ) from None
        yield client


def _silence_logs() -> None:
    """Hide Dask's long messages about lost processes; featreg reports them in one line."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def count_gpus(device: str) -> int:
    """Number of GPUs to use for ``--device``: all available ones for ``auto``, 0 for ``cpu``.

    Raises
    ------
    FeatregError
        If `device` is ``cuda`` and there is no GPU.
    """
    if device == "cpu":
        return 0
    import torch

    found = torch.cuda.device_count()
    if device == "cuda" and not found:
        raise FeatregError(
            "--device cuda: torch finds no GPU; install a CUDA build of torch, or use --device cpu"
        )
    return found
