"""Decoding of clips in child processes, ahead of the network; a crash does not end the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import decode
from featreg.datasets.base import Clip, ClipError, DecodeError

from .child_process import ChildDied, ChildHung, ChildProcess
from .decode import DecodedClip, DecodeOptions, decode_clip

# Number of clips per decoder that are being decoded or wait for the network.
_AHEAD = 3

# Default time limit per clip in seconds.
_TIMEOUT_S = 600.0

# If a clip's signals are larger than this many bytes, only one clip per decoder is kept in memory.
_LONG = 1 << 28


class Decoders:
    """Child processes that decode and resample clips.

    Parameters
    ----------
    count
        Number of processes.
    timeout_s
        Time limit per clip in seconds.
    """

    def __init__(self, count: int, timeout_s: float) -> None:
        self._all = [ChildProcess(decode_clip, timeout_s) for _ in range(count)]
        self._idle = list(self._all)  # list.append and list.pop are atomic

    @property
    def peak_bytes(self) -> int:
        """Sum of the peak memory of the processes, in bytes."""
        return sum(decoder.peak_bytes for decoder in self._all)

    def decode_all(
        self, clips: Sequence[Clip], options: DecodeOptions
    ) -> Generator[tuple[Clip, DecodedClip | ClipError], None, None]:
        """Yield each clip, decoded or with an error; the next clips are decoded meanwhile."""
        pool = ThreadPoolExecutor(len(self._all), thread_name_prefix="decode")
        try:
            waiting: deque[tuple[Clip, Future[DecodedClip | ClipError]]] = deque()
            ahead = _AHEAD * len(self._all)
            for clip in clips:
                waiting.append((clip, pool.submit(self._decode, clip, options)))
                while len(waiting) > ahead:
                    first, future = waiting.popleft()
                    outcome = future.result()
                    if isinstance(outcome, DecodedClip):
                        long = outcome.nbytes > _LONG
                        ahead = len(self._all) * (1 if long else _AHEAD)
                    yield first, outcome
            while waiting:
                clip, future = waiting.popleft()
                yield clip, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, clip: Clip, options: DecodeOptions) -> DecodedClip | ClipError:
        decoder = self._idle.pop()
        try:
            return decoder.call_with_retry(clip, options)
        except ChildDied as death:
            return _died(clip, death)
        finally:
            self._idle.append(decoder)


def _died(clip: Clip, death: ChildDied) -> ClipError:
    how = "" if isinstance(death, ChildHung) else "crashed twice: "
    return DecodeError(f"{clip.path}: the decoder {how}{death}")


def decode_apart(clip: Clip) -> tuple[npt.NDArray[np.float32], int]:
    """Call `decode` in a child process: crashes raise an error, and its output is not shown.

    Raises
    ------
    ClipError
        See `decode`; also if the decoder crashes or hangs.
    """
    clip = replace(clip, path=clip.path.absolute())  # the child has the folder of its first call
    try:
        return _single_decoder().call_with_retry(clip)
    except ChildDied as death:
        raise _died(clip, death) from None


@cache
def _single_decoder() -> ChildProcess[[Clip], tuple[npt.NDArray[np.float32], int]]:
    return ChildProcess(decode, _TIMEOUT_S)


@cache
def decoders_here(count: int, timeout_s: float) -> Decoders:
    """The decoders of this process, started once."""
    return Decoders(count, timeout_s)
