"""Runs cases in processes that may crash, hang or print a traceback."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from .cases import HANG, TRACEBACK, Case, Result, crashed

_FORK = multiprocessing.get_context("fork")
_MARK = "Traceback (most recent call last)"


class _Worker:
    """A process that runs one case after the other; its children are in its process group."""

    def __init__(self, cases: Sequence[Case], folder: Path, memory: int) -> None:
        self.pipe, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_serve, args=(theirs, cases, folder, memory))
        self.process.start()
        theirs.close()
        self.index, self.deadline = -1, float("inf")

    def give(self, index: int, limit_s: float) -> None:
        self.index, self.deadline = index, time.monotonic() + limit_s
        self.pipe.send(index)

    def end(self) -> int | None:
        """Kill the process and its children; return the exit status if it had ended already."""
        self.process.join(0.2)
        status = self.process.exitcode
        try:
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.join()
        self.pipe.close()
        return status


def run_cases(
    cases: Sequence[Case], processes: int, folder: Path, memory: int
) -> Iterator[tuple[Case, Result]]:
    """Yield each case with its result, in the order of completion.

    Parameters
    ----------
    cases
        Cases to run.
    processes
        Number of parallel processes.
    folder
        Folder for temporary files.
    memory
        Limit of the address space of each process, in bytes.
    """
    todo = list(range(len(cases)))[::-1]
    team: list[_Worker] = []
    try:
        while todo or any(each.index >= 0 for each in team):
            while len(team) < processes and len(team) < len(todo) + len(team):
                team.append(_Worker(cases, folder, memory))
                if not todo:
                    break
            for worker in team:
                if worker.index < 0 and todo:
                    index = todo.pop()
                    worker.give(index, cases[index].limit_s)
            busy = [worker for worker in team if worker.index >= 0]
            left = min(worker.deadline for worker in busy) - time.monotonic()
            ready = wait([worker.pipe for worker in busy], max(0.0, left))
            for worker in busy:
                case = cases[worker.index]
                if worker.pipe in ready:
                    try:
                        result = worker.pipe.recv()
                        worker.index = -1
                    except (EOFError, ConnectionResetError):
                        result = Result(TRACEBACK, f"the process ended: status {worker.end()}")
                        team.remove(worker)
                elif worker.deadline <= time.monotonic():
                    worker.end()
                    team.remove(worker)
                    result = Result(HANG, f"no end within {case.limit_s:g} s")
                else:
                    continue
                yield case, result
    finally:
        for worker in team:
            worker.end()


def _serve(pipe: Connection, cases: Sequence[Case], folder: Path, memory: int) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    said = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed with the process
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    while True:
        try:
            index = pipe.recv()
        except EOFError:
            os._exit(0)
        own = Path(tempfile.mkdtemp(dir=folder))
        os.chdir(own)
        before = os.fstat(said.fileno()).st_size
        try:
            result = cases[index].run(own)
        except Exception as error:
            result = crashed(error)
        os.chdir(folder)
        shutil.rmtree(own, ignore_errors=True)
        printed = os.pread(said.fileno(), 1 << 20, before).decode(errors="replace")
        if _MARK in printed and result.outcome != TRACEBACK:
            result = Result(TRACEBACK, f"printed: {printed.strip().splitlines()[-1]}")
        pipe.send(result)
