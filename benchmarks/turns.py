"""Benchmark of several contestants, each in its own process, in turns with the others.

Other load on the machine affects all contestants, so the ratio within a round is reliable even if
the times are not. This module contains both the controlling and the working process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Does the work once. The result, if any, is stored as FOLDER/NAME.npy.
Work = Callable[[], Any]


class Contestant:
    """A contestant in its own process.

    Parameters
    ----------
    script
        Script to run, which calls `serve`.
    name
        Name of the contestant in the script.
    python, folder, threads
        Its Python, the folder of its files, and its number of threads and cores.

    Attributes
    ----------
    name
        Name of the contestant.
    absent
        Reason why it cannot run; empty if it can.
    seconds
        Seconds of each turn.
    """

    def __init__(self, script: str, name: str, python: str, folder: Path, threads: int) -> None:
        self.name = name
        self.seconds: list[float] = []
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name(script)), name, folder, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict.fromkeys(limits, str(threads)),
        )
        answer = self._answer()
        self.absent = "" if answer == "ready" else answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline().strip():
            return line
        assert self._process.stderr is not None
        return "".join(self._process.stderr.readlines()[-1:]).strip() or "gave no answer"

    def turn(self) -> None:
        """Run one turn."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(float(self._answer()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def race(contestants: Iterable[Contestant], rounds: int) -> list[Contestant]:
    """Run the rounds; return the contestants that can run, and print the others."""
    present = []
    for contestant in contestants:
        if contestant.absent:
            print(f"  {contestant.name} left out: {contestant.absent}")
            contestant.close()
        else:
            present.append(contestant)
    for _ in range(rounds):
        for contestant in present:
            contestant.turn()
    for contestant in present:
        contestant.close()
    return present


def serve(contestants: Mapping[str, Callable[[Path, int], Work]]) -> None:
    """Run the contestant given by the command line: ``SCRIPT NAME FOLDER THREADS``.

    It prepares its work, prints "ready" (or why it cannot run), and then works once for each line
    that it reads, and prints the seconds that this took.
    """
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if hasattr(os, "sched_setaffinity"):  # a package may start more threads than it is told to
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    # Answers go to the original standard output; the output of packages is redirected.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        import torch

        torch.set_num_threads(threads)
    except ImportError:
        pass
    try:
        work = contestants[name](folder, threads)
    except ImportError as error:
        print(error, file=answers)
        return
    kept = work()  # unmeasured: whatever is made once is made now
    if kept is not None:
        np.save(folder / f"{name.replace('/', '-')}.npy", kept)
    print("ready", file=answers)
    for _ in sys.stdin:
        begin = time.perf_counter()
        work()
        print(time.perf_counter() - begin, file=answers)
