"""Runs jobs one after another here, or many at a time on Dask: the same function either way.

Jobs travel compressed, a window of them at a time, and each gives back a small account:
neither the scheduler nor this process ever holds audio or features.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from dask.system import CPU_COUNT

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import warn

from .local_cluster import local_cluster

if TYPE_CHECKING:
    from distributed import Client

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")

# Jobs that the scheduler knows of at a time: more than any cluster has workers, and
# few enough that a list of millions costs no memory there.
_WINDOW = 4096

# Seconds in which the first worker of a cluster has to appear.
_PATIENCE_S = 60

# Seconds in which a scheduler has to answer.
_CONNECT_S = 10.0

_SETTINGS = {
    # A job whose worker died is given to one other worker, not to four: a clip that kills
    # would take them all down.
    "distributed.scheduler.allowed-failures": 1,
    # Jobs are as long as minutes: none waits at a busy worker while another is idle.
    "distributed.scheduler.worker-saturation": 1.0,
    # Nobody looks at what Dask measures of itself, a hundred times a second in each worker.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
}


@dataclass(frozen=True, slots=True)
class Workers:
    """How many processes work, and with how many threads each.

    Attributes
    ----------
    count
        Worker processes; 0 works in this one, without Dask.
    threads
        Threads of each one's network, so that count x threads <= cores; 1 where there are
        more GPUs than cores.
    scheduler
        Address of a Dask cluster to work on in place of local processes.
    gpus
        GPUs shared out among the local workers, 0 for none.
    """

    count: int
    threads: int
    scheduler: str | None = None
    gpus: int = 0


def plan_workers(
    jobs: int, asked: int | None, scheduler: str | None, gpus: int = 0, alone: bool = True
) -> Workers:
    """Workers for a number of jobs.

    Parameters
    ----------
    jobs
        Shards to do.
    asked
        What the user wants, None to decide here: one worker a core, or one a GPU. More than
        one a core, or one a GPU, are not started.
    scheduler
        Address of a Dask cluster, None for this machine.
    gpus
        GPUs in use, 0 for none.
    alone
        Whether a single worker, too, is a process of its own: where a job may bring its
        process down, this one must live to tell.
    """
    if asked is not None and asked < 1:
        raise UsageError(f"--workers {asked}: expected at least 1")
    if scheduler is not None:
        if asked is not None:
            raise UsageError("--workers and --scheduler: a cluster brings its own workers")
        return Workers(0, 0, scheduler)
    most = max(CPU_COUNT, gpus)
    if asked is None:
        count = min(gpus or CPU_COUNT, max(1, jobs))
    elif asked <= most:
        count = asked
    else:
        count = most
        warn(f"--workers {asked}: expected at most {most}, one a core; {most} are started")
    threads = max(1, CPU_COUNT // count)
    return Workers(0 if count == 1 and not alone else count, threads, gpus=gpus)


def threads_here() -> int:
    """Threads that the Dask worker in this process was given; 1 where there is none."""
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return 1


def still_wanted() -> bool:
    """Whether anybody waits for the job that a Dask worker does in this thread.

    A job that waits for its turn behind another one cannot be taken back when its run ends.
    """
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return True
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state != "cancelled"


def run_jobs(
    function: Callable[[Job], Outcome],
    jobs: Iterable[Job],
    workers: Workers,
    again: Callable[[Job, Exception], Job | None] = lambda job, error: None,
) -> Iterator[tuple[Job, Outcome | Exception]]:
    """Each job with what `function` returned for it, or the exception that ended it.

    Jobs come back as they finish. `function` and its jobs travel by pickle: whatever is
    large is named by its path. A job that failed is done once more, in another way, if
    `again` returns one for it.

    Raises
    ------
    FeatregError
        If the cluster cannot be reached, or is lost. Where there is no job, none is needed.
    """
    rest = iter(jobs)
    first = list(islice(rest, 1))
    if not first:
        return
    jobs = chain(first, rest)
    if workers.count == 0 and workers.scheduler is None:
        for job in jobs:
            todo: Job | None = job
            while todo is not None:
                current = todo
                try:
                    outcome: Outcome | Exception = function(current)
                except Exception as error:
                    outcome = error
                todo = again(current, outcome) if isinstance(outcome, Exception) else None
            yield current, outcome
        return
    with _connect(workers) as client:
        yield from _run_on(client, function, jobs, again)


def _run_on(
    client: Client,
    function: Callable[[Job], Outcome],
    jobs: Iterable[Job],
    again: Callable[[Job, Exception], Job | None],
) -> Iterator[tuple[Job, Outcome | Exception]]:
    from distributed import as_completed

    rest = iter(jobs)
    repeated: deque[Job] = deque()
    running: dict[Any, Job] = {}
    finished = as_completed()

    def submit() -> None:
        while len(running) < _WINDOW:
            if repeated:
                job = repeated.popleft()
            elif (following := next(rest, None)) is not None:
                job = following
            else:
                return
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
        if failed is not None and (other := again(job, failed)) is not None:
            repeated.append(other)
        submit()
        if failed is None or other is None:
            yield job, outcome


@contextmanager
def _naming_the_loss() -> Iterator[None]:
    """Without its scheduler Dask raises one thing or another, as the moment has it."""
    try:
        yield
    except Exception as error:
        raise FeatregError(
            "the connection to the Dask scheduler is lost; finished shards are kept: start a "
            "scheduler, and run the same command again to resume"
        ) from error


def pack(function: Callable[[Job], Outcome], job: Job) -> bytes:
    """A job as it travels."""
    return zlib.compress(pickle.dumps((function, job), protocol=5), 1)


def _work(packed: bytes) -> Any:
    """Do a job, on a worker."""
    function, job = pickle.loads(zlib.decompress(packed))
    return function(job)


@contextmanager
def _connect(workers: Workers) -> Iterator[Client]:
    """A client of the cluster that was asked for, with a worker at least."""
    import dask
    from distributed import Client

    _hush()
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        address = workers.scheduler or stack.enter_context(
            local_cluster(workers.count, workers.gpus)
        )
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECT_S))
        except (OSError, ValueError) as error:
            raise FeatregError(
                f"--scheduler {address}: no Dask scheduler answers ({error})"
            ) from None
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except (TimeoutError, asyncio.TimeoutError):  # one and the same from Python 3.11 on
            raise FeatregError(
                f"{address}: no worker within {_PATIENCE_S} s; start some with "
                f"`dask worker {address}`"
            ) from None
        yield client


def _hush() -> None:
    """What a lost process makes Dask say, over several screens, is said by us in a line."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


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
