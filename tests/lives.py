"""Runs in processes of their own, which may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["featreg.train.training.run"])


def start(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """A process that calls `target`, a function of a test module."""
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def free_port() -> int:
    """A port on this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def become_device(rank: int, port: int) -> None:
    """Make this process one of several that train together, as a launcher does."""
    from lightning.fabric.utilities import rank_zero_only

    os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    rank_zero_only.rank = rank


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(
    work: Path, values: dict[str, Any], name: str, place: str, count: int, save_every: float
) -> None:
    """Do a run, and die at the `count`-th time at a place (0: live to the end).

    ``step``: a step was taken; ``writing``: a state is half written; ``saved``: it is
    written; ``judged``: the validation split was predicted; ``model``: the best model
    was written, and its report is not.
    """
    import torch

    from featreg.train.config.config import Config
    from featreg.train.training import checkpoint, fit, run

    torch.set_num_threads(1)
    left = count

    def then(function: Callable[..., Any], before: bool = False) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if before and left == 0:
                die()
            value = function(*arguments, **options)
            if left == 0:
                die()
            return value

        return counted

    if place == "step":
        fit.LossMonitor.add = then(fit.LossMonitor.add)  # type: ignore[method-assign]
    elif place == "writing":
        atomic_path = checkpoint.atomic_path

        @contextmanager
        def half(path: Path) -> Iterator[Path]:
            with atomic_path(path) as temporary:
                yield temporary
                contents = temporary.read_bytes()
                temporary.write_bytes(contents[:1000])
                then(lambda: None)()
                temporary.write_bytes(contents)

        checkpoint.atomic_path = half
    elif place == "saved":
        checkpoint.Progress.save = then(checkpoint.Progress.save)  # type: ignore[method-assign]
    elif place == "judged":
        run.predict = then(run.predict)
    elif place == "model":
        run.write_model = then(run.write_model)
    run.run(Config.from_json(values), work, name=name, save_every=save_every)
