"""Find the clip that crashes or hangs a network, and keep the others.

A network from outside featreg may crash, hang or run out of memory, and takes its worker
process down. Clips share batches, so after a crash each clip is first tried in a child process
of its own; a clip that fails there lacks this feature alone.
"""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from featreg.datasets.base import Clip, ClipError, FeatregError

from ..extractors.base import Batcher, Signal
from ..extractors.registry import FeatureSpec, build_extractors
from .child_process import ChildDied, ChildHung, ChildProcess

_LONGEST_S = 1e8  # what the system's timer takes


@contextmanager
def time_limit(limit_s: float) -> Iterator[None]:
    """End this process by SIGALRM if the block lasts longer.

    No call into a C library can be stopped from within its process, and one that holds
    Python's lock keeps every other thread from running: the system's timer needs neither.
    """
    signal.setitimer(signal.ITIMER_REAL, min(limit_s, _LONGEST_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class EveryClipFailed(Exception):
    """Several clips were tried alone, and all failed for the same reason: `str` gives it."""


class ClipIsolation:
    """Tries clips one at a time in a child process.

    Parameters
    ----------
    threads
        For the network.
    limit_s
        Longest time in seconds for one call of the network; a long clip takes several.
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
            self._child.twice(spec, clip.clip_id, signal, self._threads, self._limit_s)
        except ChildHung:
            cause = f"a call of the network took longer than {self._limit_s:g} s (--clip-timeout)"
        except ChildDied as death:
            cause = f"the network crashes on this clip, alone in a process: {death}"
        except FeatregError:  # the clip is not the reason
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
        if cause:
            self._causes[spec.name].append(cause)
            raise ClipError("extract", f"{clip.path}: {spec.name}: {cause}")

    def check_causes(self) -> None:
        """Refuse to record a failure of every clip: the reason is not in the clips.

        Raises
        ------
        EveryClipFailed
            If several clips were tried, and all failed for the same reason.
        """
        for name, causes in self._causes.items():
            if 1 < len(causes) == self._tried[name] and len(set(causes)) == 1:
                raise EveryClipFailed(f"{name}: with every clip, {causes[0]}")

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
