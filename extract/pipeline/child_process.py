"""Function calls in a child process, for code that may crash, hang or exhaust the memory.

Decoders are large C libraries that read arbitrary files. If one crashes or hangs in a child
process, the parent survives, fails the clip that was being decoded, and starts another child for
the next clip.

The child is a plain subprocess, not a ``multiprocessing`` one: those cannot be started by daemon
processes such as Dask's workers, and import the parent's main module again. Arguments and results
are sent as pickles, with arrays out of band to avoid copies.
"""

from __future__ import annotations

import os
import pickle
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Generic, ParamSpec, TypeVar

from featreg.datasets.allocator import keep_memory
from featreg.datasets.base import FeatregError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Time limit in seconds to start Python and import the function's module, even on a busy machine.
_START_S = 300.0

# Time limits from here on, in seconds, are not supported by the system and mean no limit.
_LONGEST_S = 2e6

# Number of attempts to start a child.
_STARTS = 3

# Keep C libraries from starting threads of their own: a child uses one core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ChildDied(Exception):
    """The child ended during a call; `str` describes how."""


class ChildHung(ChildDied):
    """The child exceeded its time limit and was killed, or ended by its own timer."""


class StartError(FeatregError):
    """No child can be started; the function and its arguments are not the cause."""


class ChildProcess(Generic[Arguments, Result]):
    """Calls a function repeatedly in a child process; not thread-safe.

    Parameters
    ----------
    function
        Function at the top level of its module, so that the child can import it.
    timeout_s
        Time limit of a call in seconds, after which the child is killed.

    Attributes
    ----------
    peak_bytes
        Peak memory of the child in bytes.
    """

    def __init__(self, function: Callable[Arguments, Result], timeout_s: float) -> None:
        self._function = function
        self._timeout_s = timeout_s if timeout_s < _LONGEST_S else None
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection
        self._output: IO[bytes]
        self.peak_bytes = 0

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Call `function` in the child and return its result.

        Raises
        ------
        ChildDied
            If the child crashed, was killed, or (`ChildHung`) exceeded its time limit.
        StartError
            If no child can be started.
        Exception
            Any exception raised by `function`.
        """
        if self._child is None:
            self._start()
        try:
            _send(self._connection, (args, kwargs))
            succeeded, result, self.peak_bytes = self._receive(self._timeout_s)
        except TimeoutError:
            self.close()
            raise ChildHung(
                f"gave no answer within {self._timeout_s:g} s (--clip-timeout), so it was stopped"
            ) from None
        except (EOFError, ConnectionError):
            how = self._how_it_died()
            # SIGALRM comes from `isolate_clips.time_limit`.
            raise (ChildHung if signal.SIGALRM.name in how else ChildDied)(how) from None
        if not succeeded:
            raise result
        return result  # type: ignore[no-any-return]

    def call_with_retry(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Call `function`; retry once if the child dies, which may have another cause."""
        try:
            return self(*args, **kwargs)
        except ChildHung:
            raise
        except ChildDied:
            return self(*args, **kwargs)

    def close(self) -> None:
        """Kill the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._connection.close()
            self._child = None

    def _start(self) -> None:
        for _ in range(_STARTS):
            try:
                self._start_once()
                return
            except (EOFError, ConnectionError, TimeoutError):
                reason = self._how_it_died()
            except OSError as error:
                reason = str(error)
        raise StartError(
            f"no process could be started on {socket.gethostname()}: {reason}; finished work is "
            "kept, run the same command again to resume"
        )

    def _start_once(self) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this object
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD,
                # Ctrl-C must reach only the parent, which ends the child.
                start_new_session=True,
            )
        _send(self._connection, sys.path)
        _send(self._connection, self._function)
        self._receive(_START_S)

    def _receive(self, timeout_s: float | None) -> Any:
        if not self._connection.poll(timeout_s):
            raise TimeoutError
        return _receive(self._connection)

    def _how_it_died(self) -> str:
        assert self._child is not None
        self._child.kill()  # if it merely closed its pipes
        status = self._child.wait()
        self.close()
        self._output.seek(0)
        last = self._output.read().decode(errors="replace").strip().splitlines()[-1:]
        if status < 0:
            description = f"it was ended by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                description += ", as happens when memory runs out"
            return description
        return " ".join([f"it exited with status {status}", *last])


def _send(connection: Connection, value: Any) -> None:
    """Send a pickle, and its arrays after it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    connection.send((head, [array.nbytes for array in arrays]))
    for array in arrays:
        connection.send_bytes(array)


def _receive(connection: Connection) -> Any:
    """Receive a value sent by `_send`; raise EOFError if the other side has ended."""
    head, sizes = connection.recv()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        connection.recv_bytes_into(buffer)
    return pickle.loads(head, buffers=buffers)


def _serve(descriptor: int) -> None:
    """Main loop of the child, until the parent ends."""
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_the_parent, args=(descriptor,), daemon=True).start()
    keep_memory()
    sys.path[:] = _receive(connection)
    function = _receive(connection)
    _send(connection, None)
    while True:
        args, kwargs = _receive(connection)
        try:
            succeeded, result = True, function(*args, **kwargs)
        except Exception as error:
            succeeded, result = False, _picklable(error)
        _send(connection, (succeeded, result, peak_bytes()))


def _picklable(error: Exception) -> Exception:
    """The exception, or a `RuntimeError` with its message if it cannot be pickled."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    if type(copy) is type(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_the_parent(descriptor: int) -> None:
    """Exit when the parent ends, even during a call."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    hangup.poll()
    os._exit(1)


def peak_bytes() -> int:
    """Peak memory of this process in bytes."""
    # On Linux, ru_maxrss includes the memory of the parent, from before this program was loaded.
    with suppress(OSError):
        status = Path("/proc/self/status").read_bytes()
        if found := re.search(rb"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    with suppress(EOFError, ConnectionError):  # the parent has ended
        _serve(int(sys.argv[1]))
