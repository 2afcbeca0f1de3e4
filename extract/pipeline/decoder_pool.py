"""Clips decoded ahead of the network, by processes that a broken file may take down."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from featreg.datasets.base import Clip, ClipError

from .child_process import ChildDied, ChildHung, ChildProcess
from .decode import DecodedClip, DecodeOptions, decode_clip

# Clips that are being decoded or wait for the network, for each decoder.
_AHEAD = 3

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
    """Hear a clip, or say how the decoder died of it."""
    try:
        return decoder.twice(clip, options)
    except ChildHung as hung:
        return ClipError("decode", f"{clip.path}: the decoder gave {hung}")
    except ChildDied as death:
        return ClipError("decode", f"{clip.path}: the decoder crashed on it, twice: {death}")


@cache
def decoders_here(count: int, timeout_s: float) -> Decoders:
    """This process's decoders: started once, like the networks."""
    return Decoders(count, timeout_s)
