"""Files and folders that one process holds at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .base import FeatregError
from .console import warn
from .shards.atomic_file import DiskError

LOCK = ".lock"
"""The file in a folder that is locked; it stays, and means nothing while it is not."""

_held: set[TextIO] = set()


def _let_go() -> None:
    """Close the copies that a forked process gets: it would hold the lock beyond our end."""
    for lock in _held:
        lock.close()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(path: Path, remedy: str, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path` as long as the block lasts; a killed process releases it.

    On a file system without locks a warning is given, and nothing is held.

    Parameters
    ----------
    path
        A file for this alone; it and its folder are made if need be, and stay.
    remedy
        What to do where nothing can be written there.
    busy
        Which other process may hold it, and what to do then; if empty, it is waited for.

    Raises
    ------
    DiskError
        If nothing can be written there.
    FeatregError
        With `busy`, if another process holds it.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = path.open("a")
    except OSError as error:
        raise DiskError(f"{folder}: cannot be written to ({error.strerror}); {remedy}") from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise FeatregError(f"{folder}: {busy}") from None
        except OSError as error:
            warn(
                f"{folder}: this file system has no locks ({error.strerror}); see to it that no "
                "other command writes here"
            )
        _held.add(lock)
        try:
            yield
        finally:
            _held.discard(lock)


@contextmanager
def exclusive(folder: Path, busy: str) -> Iterator[None]:
    """Hold a folder, made if need be, as long as the block lasts; see `locked`."""
    with locked(folder / LOCK, "fix this, or use another working folder (--work)", busy):
        yield
