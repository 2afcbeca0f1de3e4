"""Decoding of files in child processes, while the network processes those before."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from featreg.datasets.base import DecodeError
from featreg.extract.pipeline.child_process import ChildDied, ChildHung, ChildProcess

from .recording import Recording, Wanted, read_recording

# Time limit per file in seconds: 12 hours of audio take a few minutes.
_TIMEOUT_S = 3600.0

# Number of files that are decoded ahead, per process. Files of more bytes than _LARGE are decoded
# only when the network has processed all files before, so that one of them is in memory at a time.
_AHEAD = 4
_LARGE = 8_000_000

# Files that one process decodes in the time in which the network processes one are several.
_MOST_PROCESSES = 4


def decode_ahead(
    files: Iterable[Path], wanted: Wanted
) -> Iterator[tuple[Path, Recording | Exception]]:
    """Yield each file, in order, with its recording or the reason why there is none.

    A decoder that crashes or hangs fails its file only, and its output is not shown.

    Parameters
    ----------
    files
        The audio files.
    wanted
        The signals to return.
    """
    decoders = _decoders()
    pool = ThreadPoolExecutor(decoders.count, thread_name_prefix="decode")
    waiting: deque[tuple[Path, Future[Recording | Exception]]] = deque()
    try:
        for file in files:
            large = _is_large(file)
            while waiting and (large or len(waiting) > _AHEAD * decoders.count):
                yield _next(waiting)
            waiting.append((file, pool.submit(decoders.decode, file, wanted)))
            if large:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _next(
    waiting: deque[tuple[Path, Future[Recording | Exception]]],
) -> tuple[Path, Recording | Exception]:
    file, future = waiting.popleft()
    return file, future.result()


def _is_large(file: Path) -> bool:
    try:
        return file.stat().st_size > _LARGE
    except OSError:  # decoding reports the error
        return False


class _Decoders:
    """Child processes that decode."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._idle: SimpleQueue[ChildProcess[[Path, Wanted], Recording]] = SimpleQueue()
        for _ in range(count):
            self._idle.put(ChildProcess(read_recording, _TIMEOUT_S))

    def decode(self, file: Path, wanted: Wanted) -> Recording | Exception:
        """Decode a file in the next idle process; return an error instead of raising it."""
        path = file.absolute()  # the child has the folder of its first call
        child = self._idle.get()
        try:
            return child.call_with_retry(path, wanted)
        except ChildDied as death:
            how = "" if isinstance(death, ChildHung) else "crashed twice: "
            reason = str(death).replace(" (--clip-timeout)", "")
            return DecodeError(f"{path}: the decoder {how}{reason}")
        except Exception as error:
            return error
        finally:
            self._idle.put(child)


@cache
def _decoders() -> _Decoders:
    """The decoders of this process, whose children start at their first file."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _Decoders(min(_MOST_PROCESSES, max(1, (cores or 1) // 2)))
