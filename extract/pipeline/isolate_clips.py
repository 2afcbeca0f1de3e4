"""Isolation of clips that crash or hang a network, so that the other clips are extracted.

A custom network may crash, hang or exhaust the memory, which ends its worker process. Because clips
share batches, after a crash each clip is first tried alone in a child process; a clip that fails
there lacks only this feature.
"""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from featreg.datasets.base import Clip, ClipError, FeatregError

from ..extractors.base import Signal
from ..extractors.batching import Batcher
from ..extractors.registry import FeatureSpec, build_extractors
from .child_process import ChildDied, ChildHung, ChildProcess

_LONGEST_S = 1e8  # limit of the system's timer


@contextmanager
def time_limit(limit_s: float) -> Iterator[None]:
    """End this process by SIGALRM if the block exceeds the time limit in seconds.

    Python code cannot stop a call of a C library in its own process, and cannot even run while
    the call holds the global interpreter lock; the system's timer works in both cases.
    """
    signal.setitimer(signal.ITIMER_REAL, min(limit_s, _LONGEST_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class EveryClipFailed(Exception):
    """Several clips were tried alone, and all failed for the same reason, given by `str`."""


class ClipIsolation:
    """Tries clips one at a time in a child process.

    Parameters
    ----------
    threads
        Number of threads of the network.
    limit_s
        Time limit in seconds for one call of the network; a long clip takes several calls.
    """

    def __init__(self, threads: int, limit_s: float) -> None:
        self._child = ChildProcess(_extract_alone, timeout_s=float("inf"))
        self._threads, self._limit_s = threads, limit_s
        self._tried: Counter[str] = Counter()
        self._causes: defaultdict[str, list[str]] = defaultdict(list)

    def check(self, spec: FeatureSpec, clip: Clip, signal: Signal) -> None:
        """Compute a feature of a decoded clip, and discard it.

        Raises
        ------
        ClipError
            If the child process crashed or hung, or the network raised an error.
        """
        self._tried[spec.name] += 1
        cause = ""
        try:
            self._child.call_with_retry(spec, clip.clip_id, signal, self._threads, self._limit_s)
        except ChildHung:
            cause = f"a call of the network took longer than {self._limit_s:g} s (--clip-timeout)"
        except ChildDied as death:
            cause = f"the network crashes on this clip: {death}"
        except FeatregError:  # not caused by the clip
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
        if cause:
            self._causes[spec.name].append(cause)
            raise ClipError("extract", f"{clip.path}: {spec.name}: {cause}")

    def check_causes(self) -> None:
        """Raise an error if every clip failed, because then the clips are not the cause.

        Raises
        ------
        EveryClipFailed
            If several clips were tried, and all failed for the same reason.
        """
        for name, causes in self._causes.items():
            if 1 < len(causes) == self._tried[name] and len(set(causes)) == 1:
                raise EveryClipFailed(f"{name}: every clip failed: {causes[0]}")

    def close(self) -> None:
        """End the child process."""
        self._child.close()


def _extract_alone(
    spec: FeatureSpec, clip_id: str, signal: Signal, threads: int, limit_s: float
) -> None:
    (extractor,) = build_extractors((spec,), threads)
    batcher = Batcher(extractor, lambda *frames: None, partial(time_limit, limit_s))
    with suppress(ClipError):  # raised again when the feature is computed
        batcher.push(clip_id, signal)
        batcher.flush()
