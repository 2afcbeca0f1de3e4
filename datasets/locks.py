"""Locks on files and folders, held by one process at a time."""

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
"""Name of the lock file in a folder; it is never removed, and alone it does not mean a lock."""

_held: set[TextIO] = set()


def _release_in_child() -> None:
    """Close the lock files in a forked process, which would otherwise outlive its parent's lock."""
    for lock in _held:
        lock.close()


os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def locked(path: Path, remedy: str, busy: str = "") -> Iterator[None]:
    """Hold a lock on the file `path` until the block ends; a killed process releases it.

    On a file system without locks, print a warning and continue without a lock.

    Parameters
    ----------
    path
        Lock file; created with its folder if necessary, and never removed.
    remedy
        What the user can do if the file cannot be written.
    busy
        Error message if another process holds the lock; if empty, wait for that process.

    Raises
    ------
    DiskError
        If the file cannot be written.
    FeatregError
        If another process holds the lock and `busy` is not empty.
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
                f"{folder}: this file system has no locks ({error.strerror}); make sure that no "
                "other command writes to this folder"
            )
        _held.add(lock)
        try:
            yield
        finally:
            _held.discard(lock)


@contextmanager
def exclusive(folder: Path, busy: str) -> Iterator[None]:
    """Hold a lock on a folder, created if necessary, until the block ends; see `locked`."""
    with locked(folder / LOCK, "fix this, or use another working folder (--work)", busy):
        yield
