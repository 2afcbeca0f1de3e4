"""Who broke the worker: each clip alone, in a process to throw away, before it is computed here.

A network is no less able than a decoder to crash, hang or want more memory than there is.
Its clips share batches, so that only one at a time shows which of them it was; and that
clip lacks this feature alone.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from contextlib import suppress

from featreg.datasets.base import Clip, ClipError, FeatregError

from ..extractors.base import Batcher, Signal
from ..extractors.registry import FeatureSpec, build_extractors
from .child_process import ChildDied, ChildHung, ChildProcess
from .watchdog import Watchdog


class EveryClipFailed(Exception):
    """Several clips were tried alone, and all of them failed of one cause; `str` says which."""


class Trial:
    """Tries clips one at a time.

    Parameters
    ----------
    threads
        For the network.
    limit_s
        Seconds for one call of it. A whole clip may take as long as it likes: it may be long.
    """

    def __init__(self, threads: int, limit_s: float) -> None:
        self._alone = ChildProcess(_extract_alone, timeout_s=float("inf"))
        self._threads, self._limit_s = threads, limit_s
        self._tried: Counter[str] = Counter()
        self._causes: defaultdict[str, list[str]] = defaultdict(list)

    def check(self, spec: FeatureSpec, clip: Clip, signal: Signal) -> None:
        """Compute a feature of a clip as it is heard, and forget it.

        Raises
        ------
        ClipError
            If a process did not survive it, or an error came of it that is not of the clip's.
        """
        self._tried[spec.name] += 1
        if cause := self._cause(spec, clip, signal):
            self._causes[spec.name].append(cause)
            raise ClipError("extract", f"{clip.path}: {spec.name}: {cause}")

    def _cause(self, spec: FeatureSpec, clip: Clip, signal: Signal) -> str:
        try:
            self._alone.twice(spec, clip.clip_id, signal, self._threads, self._limit_s)
        except ChildHung:
            return (
                f"the network gave no answer within {self._limit_s:g} s (--clip-timeout), "
                "so it was stopped"
            )
        except ChildDied as death:
            return f"no process survives it, alone in one: {death}"
        except FeatregError:  # no fault of the clip's
            raise
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return ""

    def absolve(self) -> None:
        """Blame no clip for what happens to every one of them.

        Raises
        ------
        EveryClipFailed
            If several were tried and all of them failed, of the same cause: what is not
            there, or does not work, is not in the clips.
        """
        for name, causes in self._causes.items():
            if 1 < len(causes) == self._tried[name] and len(set(causes)) == 1:
                raise EveryClipFailed(f"{name}: with every clip, {causes[0]}")

    def close(self) -> None:
        """End the process."""
        self._alone.close()


def _extract_alone(
    spec: FeatureSpec, clip_id: str, signal: Signal, threads: int, limit_s: float
) -> None:
    (extractor,) = build_extractors((spec,), threads)
    batcher = Batcher(extractor, lambda *rows: None, Watchdog(limit_s, sys.stderr))
    with suppress(ClipError):  # what the clip lacks, it lacks here too
        batcher.push(clip_id, signal)
        batcher.flush()
