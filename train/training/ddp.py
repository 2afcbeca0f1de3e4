"""Joint termination of the processes of several devices."""

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
def kill_children_on_error(fabric: Fabric) -> Iterator[None]:
    """Kill the processes that this one started if the block fails; they would wait for it.

    Raises
    ------
    FeatregError
        If the block fails because one of these processes failed.
    """
    try:
        yield
    except BaseException as error:
        children = getattr(fabric.strategy.launcher, "procs", ())
        failed = isinstance(error, RuntimeError) and [each for each in children if _failed(each)]
        for process in children:
            process.kill()
        if failed:
            raise FeatregError(
                f"the process of another device failed with status {failed[0].returncode}; see "
                "its messages above"
            ) from error
        raise


def _failed(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process failed, or fails within 5 s of closing its connections."""
    try:
        return process.wait(timeout=5) != 0
    except subprocess.TimeoutExpired:
        return False


def exit_with_parent(interval_s: float = 2.0) -> None:
    """Exit this process when its parent process has ended, for example because it was killed.

    Otherwise it would wait for the parent's next message, with NCCL for minutes, and occupy
    its accelerator when the run is resumed.

    Parameters
    ----------
    interval_s
        Seconds between two checks.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()
