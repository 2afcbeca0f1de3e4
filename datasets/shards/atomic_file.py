"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..base import FeatregError
from .disk_space import free_bytes

# Errors that affect the whole file system or folder, not only one file.
_NO_PLACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file may not grow further (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
}


class DiskError(FeatregError):
    """Files cannot be written to this disk or folder, so that all later shards would fail too."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, renamed to `path` if the block succeeds.

    The file is synced to disk before it is renamed, and its folder afterwards, so that neither a
    killed process nor a power failure leaves an incomplete file.

    Raises
    ------
    DiskError
        If the disk is full or not writable, or a folder has this name.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        with suppress(OSError):  # some network file systems cannot sync a folder
            _sync(path.parent)
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise DiskError(
            f"{path}: cannot be written ({error.strerror}: {error.filename2 or error.filename}); "
            "move that away, then run the same command again"
        ) from None
    except (OSError, RuntimeError) as error:
        if (reason := _no_place(error)) is None:
            raise
        raise DiskError(
            f"{path}: {reason} ({free_bytes(path) / 1e6:,.1f} MB free); free disk space or use "
            "another working folder (--work), then run the same command again: finished shards "
            "are kept"
        ) from None
    finally:
        # On a file system that has become read-only the file remains; the next run removes it.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _no_place(error: BaseException) -> str | None:
    """Why the folder is not writable; None if the error has another cause."""
    number = getattr(error, "errno", None)
    if number is None:  # HDF5 states it in the message only
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else 0
    return _NO_PLACE.get(number)


def remove_temporaries(folder: Path) -> None:
    """Remove incomplete files of killed processes from a folder and its subfolders."""
    for path in folder.rglob(".*.tmp"):
        with suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
