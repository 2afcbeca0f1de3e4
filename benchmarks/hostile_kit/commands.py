"""Runs of `prep` and `train` in this or another process, and the resulting files."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from .cases import REFUSED, TRACEBACK, WRONG, Result
from .signals import Array

_GROUPS = {
    "prep": ("featreg.extract.cli.prep", "prep"),
    "train": ("featreg.train.cli.train", "train"),
}


class Done(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of its output, or an empty string."""
        return (self.err.strip() or self.out.strip() or "nothing was said").splitlines()[-1]


def call(command: str, *arguments: object) -> Done:
    """``prep ARGUMENTS`` or ``train ARGUMENTS`` in this process.

    Raises
    ------
    Exception
        Any exception that the command does not handle.
    """
    import importlib

    from click.testing import CliRunner

    module, name = _GROUPS[command]
    if command == "prep":
        _work_here()
    group = getattr(importlib.import_module(module), name)
    result = CliRunner().invoke(group, [str(each) for each in arguments])
    if result.exc_info and not isinstance(result.exception, SystemExit | None):
        raise result.exception
    # As bytes, for in its text "\r\n" has become "\n".
    out, err = result.stdout_bytes.decode(errors="replace"), result.stderr_bytes.decode()
    return Done(result.exit_code, out, err)


@functools.cache
def _work_here() -> None:
    """Run a single worker in this process, because a Dask worker takes seconds to start."""
    from featreg.extract.pipeline import dask_pool

    if plan := getattr(dask_pool, "plan_workers", None):

        def one(jobs: int, asked: int | None, *others: object, **options: object) -> object:
            return plan(jobs, 1, *others, **{**options, "alone": False})

        dask_pool.plan_workers = one


def spawn(
    command: str,
    *arguments: object,
    timeout_s: float = 90,
    before: Callable[[], None] | None = None,
    text: bool = True,
) -> Done:
    """Run the command in its own process.

    Raises
    ------
    TimeoutError
        If the command does not end in time.
    """
    module, name = _GROUPS[command]
    words = [each if isinstance(each, bytes) else str(each) for each in arguments]
    with subprocess.Popen(
        [sys.executable, "-c", f"from {module} import {name}; {name}()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=before,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"no end within {timeout_s:g} s") from None
    return Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def refused(done: Done, *names: str) -> Result:
    """Whether a command failed correctly: with one line that contains one of `names`."""
    said = done.out + done.err
    if "Traceback (most recent call last)" in said or done.status not in (0, 1, 2):
        return Result(TRACEBACK, f"status {done.status}: {done.last}")
    if done.status == 0:
        return Result(WRONG, f"accepted: {done.last}")
    errors = [line for line in done.err.splitlines() if line.lower().startswith("error:")]
    if len(errors) != 1:
        return Result(WRONG, f"{len(errors)} error lines: {done.last}")
    if names and not any(name in said for name in names):
        return Result(WRONG, f"none of {', '.join(names)} is named: {errors[0]}")
    return Result(REFUSED, errors[0])


def stored(work: Path, feature: str = "audio") -> dict[str, Array]:
    """Frames of every clip in native shards, read with h5py, by clip."""
    found: dict[str, Array] = {}
    for path in sorted(work.glob(f"*/native/{feature}/*.h5")):
        with h5py.File(path) as file:
            frames = file["frames"]
            scale, shift = frames.attrs.get("scale", 1.0), frames.attrs.get("offset", 0.0)
            bounds = file["offset"][()]
            for k, name in enumerate(file["clip_id"].asstr()[()]):
                values = frames[bounds[k] : bounds[k + 1]].astype(np.float64)
                found[str(name)] = values * scale + shift
    return found


def failures(work: Path) -> dict[str, str]:
    """Reason of each clip's failure in failures.csv."""
    import csv

    found: dict[str, str] = {}
    for path in work.glob("*/failures.csv"):
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            found |= {row["clip_id"]: row["reason"] for row in csv.DictReader(file)}
    return found


def contents(work: Path, part: str) -> dict[str, object]:
    """Every dataset and attribute of the shards in a part of it, ``native`` or ``aligned``."""
    found: dict[str, object] = {}

    def add(name: str, item: object, path: Path) -> None:
        if isinstance(item, h5py.Dataset):
            found[f"{path.relative_to(work)}/{name}"] = item[()].tobytes()

    for path in sorted(work.glob(f"*/{part}/*/*.h5")):
        with h5py.File(path) as file:
            file.visititems(functools.partial(add, path=path))
            found |= {f"{path.relative_to(work)}@{k}": str(v) for k, v in file.attrs.items()}
    return found
