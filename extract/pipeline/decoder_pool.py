"""Clips decoded in child processes, ahead of the network: a broken file cannot crash the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import decode
from featreg.datasets.base import Clip, ClipError

from .child_process import ChildDied, ChildHung, ChildProcess
from .decode import DecodedClip, DecodeOptions, decode_clip

# Clips that are being decoded or wait for the network, for each decoder.
_AHEAD = 3

# Seconds for a clip where no option says how long it may take.
_TIMEOUT_S = 600.0

# Bytes of a clip's signals from which on only one is held for each decoder.
_LONG = 1 << 28


class Decoders:
    """Processes that decode and resample.

    Parameters
    ----------
    count
        How many.
    timeout_s
        Seconds after which one is stopped that is still busy with the same clip.
    """

    def __init__(self, count: int, timeout_s: float) -> None:
        self._all = [ChildProcess(decode_clip, timeout_s) for _ in range(count)]
        self._idle = list(self._all)  # list.append and list.pop are atomic

    @property
    def peak_bytes(self) -> int:
        """Most memory that they had, all together."""
        return sum(decoder.peak_bytes for decoder in self._all)

    def hear_all(
        self, clips: Sequence[Clip], options: DecodeOptions
    ) -> Generator[tuple[Clip, DecodedClip | ClipError], None, None]:
        """Each clip as heard, or why not; the next ones are decoded meanwhile."""
        pool = ThreadPoolExecutor(len(self._all), thread_name_prefix="decode")
        try:
            waiting: deque[tuple[Clip, Future[DecodedClip | ClipError]]] = deque()
            ahead = _AHEAD * len(self._all)
            for clip in clips:
                waiting.append((clip, pool.submit(self._hear, clip, options)))
                while len(waiting) > ahead:
                    first, future = waiting.popleft()
                    heard = future.result()
                    if isinstance(heard, DecodedClip):
                        long = heard.nbytes > _LONG
                        ahead = len(self._all) * (1 if long else _AHEAD)
                    yield first, heard
            while waiting:
                clip, future = waiting.popleft()
                yield clip, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _hear(self, clip: Clip, options: DecodeOptions) -> DecodedClip | ClipError:
        decoder = self._idle.pop()
        try:
            return _hear(decoder, clip, options)
        finally:
            self._idle.append(decoder)


def _hear(
    decoder: ChildProcess[[Clip, DecodeOptions], DecodedClip | ClipError],
    clip: Clip,
    options: DecodeOptions,
) -> DecodedClip | ClipError:
    """Decode a clip, or say how the decoder died of it."""
    try:
        return decoder.twice(clip, options)
    except ChildDied as death:
        return _died(clip, death)


def _died(clip: Clip, death: ChildDied) -> ClipError:
    if isinstance(death, ChildHung):
        return ClipError("decode", f"{clip.path}: the decoder gave {death}")
    return ClipError("decode", f"{clip.path}: the decoder crashed on it, twice: {death}")


def decode_apart(clip: Clip) -> tuple[npt.NDArray[np.float32], int]:
    """`decode` in a child process: a crash is an error, and what the decoder prints is not shown.

    Raises
    ------
    ClipError
        As `decode`, or if the decoder crashes or hangs.
    """
    try:
        return _single_decoder().twice(clip)
    except ChildDied as death:
        raise _died(clip, death) from None


@cache
def _single_decoder() -> ChildProcess[[Clip], tuple[npt.NDArray[np.float32], int]]:
    return ChildProcess(decode, _TIMEOUT_S)


@cache
def decoders_here(count: int, timeout_s: float) -> Decoders:
    """This process's decoders: started once, like the networks."""
    return Decoders(count, timeout_s)
