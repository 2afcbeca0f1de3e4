"""Work that may crash, hang or eat all memory, in a process that may be thrown away.

A decoder is a large C library that meets whatever lies on a disk. In a child process it
can do no harm: the parent sees it die or exceed its time, knows which clip it had in
hand, and starts another child for the next.

The child is a plain subprocess and no ``multiprocessing`` one: those may have no parent
that is a daemon, which Dask's workers are, and import the parent's main module again.
Arguments and results travel as pickles, arrays beside them without a copy.
"""

from __future__ import annotations

import os
import pickle
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Generic, ParamSpec, TypeVar

from featreg.datasets.allocator import keep_memory
from featreg.datasets.base import FeatregError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Seconds to start Python and import a function's module, on a busy machine too.
_START_S = 300.0

# How often a child is started that dies before it can do anything.
_STARTS = 3

# One C library after another starts threads of its own; a child works on one core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ChildDied(Exception):
    """The child ended while it worked; `str` says how."""


class ChildHung(ChildDied):
    """The child took longer than it may, and was ended; or its own timer ended it."""


class StartError(FeatregError):
    """No child can be started: nothing is wrong with what it was to do."""


class ChildProcess(Generic[Arguments, Result]):
    """Calls a function in a child process, again and again; for one thread at a time.

    Parameters
    ----------
    function
        At the top of its module, where the child finds it.
    timeout_s
        Seconds for one call, after which the child is killed.

    Attributes
    ----------
    peak_bytes
        Most memory that a child had.
    """

    def __init__(self, function: Callable[Arguments, Result], timeout_s: float) -> None:
        self._function = function
        # What is longer than any wait can be, is for ever.
        self._timeout_s = timeout_s if timeout_s < threading.TIMEOUT_MAX else float("inf")
        self._child: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self.peak_bytes = 0

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """What `function` returns.

        Raises
        ------
        ChildDied
            If the child crashed, was killed, or (`ChildHung`) took longer than it may.
        StartError
            If there is no child, and none can be started.
        Exception
            Whatever `function` raised.
        """
        if self._child is None:
            self._start()
        assert self._child is not None
        try:
            _send(self._child.stdin, (args, kwargs))
            succeeded, result, self.peak_bytes = self._receive(self._timeout_s)
        except (EOFError, BrokenPipeError):
            how = self._how_it_died()
            # SIGALRM comes from `isolate_clips.time_limit`.
            raise (ChildHung if signal.SIGALRM.name in how else ChildDied)(how) from None
        except TimeoutError:
            self.close()
            raise ChildHung(
                f"no answer within {self._timeout_s:g} s (--clip-timeout), so it was stopped"
            ) from None
        if not succeeded:
            raise result
        return result  # type: ignore[no-any-return]

    def twice(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The same; once more if the child dies of it, for somebody else may have killed it."""
        try:
            return self(*args, **kwargs)
        except ChildHung:
            raise
        except ChildDied:
            return self(*args, **kwargs)

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> None:
        for _ in range(_STARTS):
            try:
                self._start_once()
                return
            except (EOFError, BrokenPipeError, TimeoutError):
                reason = self._how_it_died()
            except OSError as error:
                reason = str(error)
        raise StartError(
            f"no process could be started on {socket.gethostname()}: {reason}; what is finished "
            "stays, and the same command goes on from there"
        )

    def _start_once(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this object
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Decoders write warnings there for every other file.
            stderr=self._complaints,
            env=os.environ | _ONE_THREAD,
            # Ctrl-C is for the parent, which decides what becomes of the child.
            start_new_session=True,
        )
        _send(self._child.stdin, sys.path)
        _send(self._child.stdin, self._function)
        self._receive(_START_S)

    def _receive(self, timeout_s: float) -> Any:
        assert self._child is not None
        assert self._child.stdout is not None
        return _receive(self._child.stdout, time.monotonic() + timeout_s)

    def _how_it_died(self) -> str:
        assert self._child is not None
        self._child.kill()  # if it merely closed its pipes
        status = self._child.wait()
        self.close()
        last = self._last_words().splitlines()[-1:]
        if status < 0:
            what = f"it was ended by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                what += ", as happens when memory runs out"
            return what
        return " ".join([f"it exited with status {status}", *last])

    def _last_words(self) -> str:
        """What the child wrote to its standard error."""
        assert self._complaints is not None
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace").strip()


def _send(pipe: IO[bytes] | None, value: Any) -> None:
    """Write a pickle, and the arrays that it names, each after its length."""
    assert pipe is not None
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    pipe.write(struct.pack(f"<I{len(parts)}Q", len(parts), *(part.nbytes for part in parts)))
    for part in parts:
        pipe.write(part)
    pipe.flush()


def _receive(pipe: IO[bytes], deadline: float = float("inf")) -> Any:
    """What `_send` wrote."""
    (count,) = struct.unpack("<I", _read(pipe, 4, deadline))
    sizes = struct.unpack(f"<{count}Q", _read(pipe, 8 * count, deadline))
    head, *buffers = [_read(pipe, size, deadline) for size in sizes]
    return pickle.loads(head, buffers=buffers)


def _read(pipe: IO[bytes], size: int, deadline: float) -> bytearray:
    """Exactly `size` bytes.

    Raises
    ------
    EOFError
        If the other side closed the pipe.
    TimeoutError
        If they have not come by `deadline`, on the monotonic clock.
    """
    held = bytearray(size)
    view, descriptor = memoryview(held), pipe.fileno()
    while len(view):
        left = deadline - time.monotonic()
        if left < float("inf") and not select.select([descriptor], [], [], max(0.0, left))[0]:
            raise TimeoutError
        count = os.readv(descriptor, [view])
        if not count:
            raise EOFError
        view = view[count:]
    return held


def _serve() -> None:
    """The child: answer until the parent is gone."""
    # Answers go where standard output went; what C libraries print does not.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    keep_memory()
    sys.path[:] = _receive(sys.stdin.buffer)
    function = _receive(sys.stdin.buffer)
    _send(answers, None)
    while True:
        args, kwargs = _receive(sys.stdin.buffer)
        try:
            succeeded, result = True, function(*args, **kwargs)
        except Exception as error:
            succeeded, result = False, _as_it_arrives(error)
        _send(answers, (succeeded, result, peak_bytes()))


def _as_it_arrives(error: Exception) -> Exception:
    """The error, or its words where its class cannot be built again from a pickle."""
    try:
        arrived = pickle.loads(pickle.dumps(error))
    except Exception:
        arrived = None
    if type(arrived) is type(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_the_parent() -> None:
    """Leave when the parent is gone, even while a call hangs."""
    hangup = select.poll()
    hangup.register(0, 0)
    hangup.poll()
    os._exit(1)


def peak_bytes() -> int:
    """Most memory that this process ever had."""
    # Linux counts into ru_maxrss what the process had before it became this program: its
    # parent's memory.
    with suppress(OSError):
        status = Path("/proc/self/status").read_bytes()
        if found := re.search(rb"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        _serve()
