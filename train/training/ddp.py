"""Processes that train together end together."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric import Fabric

from featreg.datasets.base import FeatregError


@contextmanager
def ended_together(fabric: Fabric) -> Iterator[None]:
    """End the processes that this one started, should it fail: they would wait for it.

    Raises
    ------
    FeatregError
        If it fails because one of them did.
    """
    try:
        yield
    except BaseException as error:
        others = getattr(fabric.strategy.launcher, "procs", ())
        failed = isinstance(error, RuntimeError) and [each for each in others if _failed(each)]
        for process in others:
            process.kill()
        if failed:
            raise FeatregError(
                f"the process of another device ended with status {failed[0].returncode}; what it "
                "said stands above"
            ) from error
        raise


def _failed(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended badly, or does so within a moment of closing its connections."""
    try:
        return process.wait(timeout=5) != 0
    except subprocess.TimeoutExpired:
        return False


def end_with_parent(every_s: float = 2.0) -> None:
    """End this process when the one that started it is gone, killed for example.

    It would wait for the other device's next message, for minutes with NCCL, and keep
    its accelerator from the run that goes on.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
