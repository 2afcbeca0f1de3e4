"""Comparison of featreg's result for an audio file with the expected one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .cases import REFUSED, RIGHT, WRONG, Result, crashed
from .signals import Array

Expected = Callable[[Array, int], str]
"""Says of samples of shape (samples,) and their rate how they are wrong; empty if right."""

MUST_ACCEPT, MUST_REFUSE, MAY_REFUSE = "accept", "refuse", "either"


def decode(path: Path, start_s: float = 0.0, duration_s: float | None = None) -> tuple[Array, int]:
    """The signal that the extractors receive, at the file's own rate."""
    from featreg.datasets.audio import decode as module
    from featreg.datasets.base import Clip

    one = np.ones(1, np.uint8)
    clip = Clip("clip", path, "train", one, one, start_s=start_s, duration_s=duration_s)
    signal, rate = module.decode(clip)[:2]
    return np.asarray(signal, np.float64), int(rate)


def judge(
    path: Path,
    expected: Expected | None,
    must: str = MAY_REFUSE,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> Result:
    """Decode a file, and compare the outcome with the expected one.

    Parameters
    ----------
    path
        The file.
    expected
        Function that checks the samples; None if the file must be rejected.
    must
        `MUST_ACCEPT` if a rejection is wrong, `MAY_REFUSE` if it is allowed, `MUST_REFUSE` if
        nothing else is right.
    start_s, duration_s
        The excerpt.
    """
    from featreg.datasets.base import FeatregError

    try:
        signal, rate = decode(path, start_s, duration_s)
    except FeatregError as error:
        return refusal(str(error), path, must)
    except Exception as error:
        return crashed(error)
    if expected is None or must == MUST_REFUSE:
        return Result(WRONG, f"{len(signal)} samples at {rate} Hz accepted, expected a refusal")
    if why := expected(signal, rate):
        return Result(WRONG, why)
    return Result(RIGHT)


def refusal(message: str, path: Path, must: str = MAY_REFUSE) -> Result:
    """Result of a rejection, which must be one line that names the file."""
    if must == MUST_ACCEPT:
        return Result(WRONG, f"refused: {message}")
    if str(path) not in message and repr(str(path))[1:-1] not in message:
        return Result(WRONG, f"refused without naming the file: {message}")
    if "\n" in message:
        return Result(WRONG, f"refused in {len(message.splitlines())} lines: {message!r}")
    return Result(REFUSED, message)
