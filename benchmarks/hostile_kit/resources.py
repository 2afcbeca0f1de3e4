"""Kind 14: full disks, few open files, little memory, and termination by a batch system."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .base_work import copy, extract, run_words
from .cases import REFUSED, RIGHT, TRACEBACK, WRONG, Case, Kit, Result
from .commands import Done, call, contents, refused, spawn

_END_S = 150.0
_LIMIT_S = 400.0
_MB = 1 << 20
_ABORTED = re.compile("OpenBLAS error: Memory alloc|cannot allocate memory|bad_alloc")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_COMMANDS = ("extract", "align", "run", "verify", "eval", "predict")
_WRITERS = ("extract", "align", "run")


def cases(kit: Kit, base: Path) -> Iterator[Case]:
    """Every command with every resource limit, and then without."""
    made: list[tuple[str, str, Callable[[], None]]] = []
    for command in _COMMANDS:
        lacks = [(f"files-{n}", "RLIMIT_NOFILE", n) for n in (16, 40, 64)]
        lacks += [(f"memory-{n}", "RLIMIT_AS", n * _MB) for n in (1000, 2000, 4000)]
        if command in _WRITERS:
            lacks += [(f"file-size-{n}", "RLIMIT_FSIZE", n) for n in (0, 6000, 50_000)]
        made += [(name, command, _limit(which, value)) for name, which, value in lacks]
    for number, (name, command, before) in enumerate(made):
        if not kit.quick or number == 1:
            yield Case(f"{name}-{command}", partial(_lack, base, command, before), _LIMIT_S)
    for command in _WRITERS:
        for kilobytes in (16, 150):
            if not kit.quick and _may_mount():
                case = partial(_full, base, command, kilobytes)
                yield Case(f"disk-{kilobytes}-{command}", case, _LIMIT_S)
        for number in range(kit.count(2, 0)):
            delay_s = kit.random("stop", command, number).uniform(0.3, 12)
            case = partial(_stop, base, command, delay_s)
            yield Case(f"stop-{number}-{command}", case, _LIMIT_S)


def _limit(name: str, value: int) -> Callable[[], None]:
    which = getattr(resource, name)
    return lambda: resource.setrlimit(which, (value, value))


def _prepare(base: Path, command: str, folder: Path) -> tuple[Path, str, list[object]]:
    """A working folder in which the command has all to do, and its words."""
    work = copy(base, folder)
    if command in _WRITERS:
        shutil.rmtree(work / "runs")
    if command == "extract":
        shutil.rmtree(work / "list")
        return work, "prep", extract(base.parent, work)
    if command == "align":
        shutil.rmtree(work / "list" / "aligned")
        return work, "prep", ["align", "--resolution", 0.1, "--work", work]
    if command == "run":
        return work, "train", run_words("conreg", work)
    if command == "verify":
        return work, "prep", ["verify", work]
    if command == "eval":
        return work, "train", ["eval", "conreg", "--workers", 0, "--work", work]
    return work, "train", ["predict", base.parent / "0.wav", "--run", "conreg", "--work", work]


def _complete(base: Path, work: Path, command: str, group: str, words: list[object]) -> Result:
    """The same command with all that it needs must give what an undisturbed one gave."""
    done = call(group, *words)
    if done.status:
        return Result(WRONG, f"again: {done.last}")
    if command == "run":
        old, new = (
            json.loads((each / "runs" / "conreg" / "report.json").read_text())["test"]
            for each in (base, work)
        )
        return Result(RIGHT) if old == new else Result(WRONG, f"again: test {new}")
    if command in _WRITERS:
        part = "native" if command == "extract" else "aligned"
        old, new = contents(base, part), contents(work, part)
        if old != new:
            off = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
            return Result(WRONG, f"again: {len(off)} others, {sorted(off)[0]} among them")
    left = [path.name for path in work.rglob("*.tmp")]
    return Result(WRONG, f"again: {left} are left") if left else Result(RIGHT)


def _then(
    base: Path, done: Done, work: Path, command: str, group: str, words: list[object]
) -> Result:
    if done.status:
        # A library in C that gets no memory ends the process itself, with a line of its own.
        aborted = done.status not in (0, 2) and "Traceback" not in done.err
        if aborted and _ABORTED.search(done.last):
            result = Result(REFUSED, done.last)
        else:
            result = refused(done)
        if result.outcome != REFUSED:
            return result
    elif "Traceback" in done.out + done.err:
        return Result(TRACEBACK, done.last)
    again = _complete(base, work, command, group, words)
    if again.outcome != RIGHT:
        return again
    return Result(REFUSED, done.last) if done.status else Result(RIGHT)


def _lack(base: Path, command: str, before: Callable[[], None], folder: Path) -> Result:
    work, group, words = _prepare(base, command, folder)
    try:
        done = spawn(group, *words, timeout_s=_END_S, before=before)
    except TimeoutError as error:
        return Result("hang", str(error))
    return _then(base, done, work, command, group, words)


def _may_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return (
        bool(shutil.which("unshare"))
        and subprocess.run(command, capture_output=True).returncode == 0
    )


_FULL = """
mv "$0" "$0.old" && mkdir "$0" && mount -t tmpfs -o size=$1k none "$0" || exit 99
cp -r "$0.old/." "$0" 2>/dev/null
mount -o remount,size=$(($(du -sk "$0" | cut -f1) + $1))k "$0" || exit 99
limit=$1; shift
"$@"; status=$?
mount -o remount,size=1g "$0" && cp -r "$0" "$0.out"
exit $status
"""


def _full(base: Path, command: str, kilobytes: int, folder: Path) -> Result:
    """A disk of its own with so much left on it, which is seen by this command alone."""
    work, group, words = _prepare(base, command, folder)
    module = "featreg.extract.cli.prep" if group == "prep" else "featreg.train.cli.train"
    script = f"from {module} import {group}; {group}()"
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
               _FULL.replace("size=$1k none", "size=64m none"), str(work), str(kilobytes),
               sys.executable, "-c", script, *map(str, words)]  # fmt: skip
    try:
        run = subprocess.run(mounted, capture_output=True, text=True, timeout=_END_S)
    except subprocess.TimeoutExpired:
        return Result("hang", f"no end within {_END_S:g} s")
    if run.returncode == 99:
        return Result(RIGHT, "no mounts here")
    shutil.rmtree(work)
    work.with_name("work.out").rename(work)
    done = Done(run.returncode, run.stdout, run.stderr)
    return _then(base, done, work, command, group, words)


def _stop(base: Path, command: str, delay_s: float, folder: Path) -> Result:
    """SIGTERM ends the command soon, with one line."""
    work, group, words = _prepare(base, command, folder)
    started: list[int] = []

    def note() -> None:
        os.setpgrp()
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        (folder / "pid").write_text(str(os.getpid()))

    def stop() -> None:
        started.append(int((folder / "pid").read_text()))
        os.kill(started[0], signal.SIGTERM)

    timer = threading.Timer(delay_s, stop)
    timer.start()
    try:
        done = spawn(group, *words, timeout_s=delay_s + 60, before=note)
    except TimeoutError:
        return Result("hang", f"no end within 60 s of SIGTERM, after {delay_s:.1f} s")
    finally:
        timer.cancel()
    if "Traceback" in done.out + done.err:
        return Result(TRACEBACK, done.last)
    if done.status not in (0, 143, -signal.SIGTERM):
        return Result(WRONG, f"status {done.status} after SIGTERM: {done.last}")
    again = _complete(base, work, command, group, words)
    return Result(REFUSED, done.last) if again.outcome == RIGHT else again
