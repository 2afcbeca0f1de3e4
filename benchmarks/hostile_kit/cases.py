"""An input, what is done with it, and the five ways in which that can end."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

RIGHT = "accepted and right"
REFUSED = "refused and named"
WRONG = "wrong"
TRACEBACK = "traceback"
HANG = "hang"
OUTCOMES = (RIGHT, REFUSED, WRONG, TRACEBACK, HANG)


class Result(NamedTuple):
    """What came of an input: one of `OUTCOMES`, and the evidence in one line."""

    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes
    ----------
    name
        Unique within its kind, and the same for the same seed.
    run
        Makes the input in the empty folder it is given, uses it, and judges what comes of it.
    limit_s
        Seconds after which it counts as a hang.
    """

    name: str
    run: Callable[[Path], Result]
    limit_s: float = 20.0


@dataclass(frozen=True)
class Kit:
    """What the kinds have in common.

    Attributes
    ----------
    folder
        For inputs that several cases share.
    seed
        Of everything random.
    quick
        Whether to make a small sample of each kind.
    """

    folder: Path
    seed: int
    quick: bool

    def random(self, *names: object) -> random.Random:
        """A generator of its own for whatever `names` name."""
        return random.Random(f"{self.seed} {names}")

    def count(self, full: int, quick: int) -> int:
        """How many there are to be."""
        return quick if self.quick else full


def crashed(error: BaseException) -> Result:
    """The result where an exception came out that is none of featreg's own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return Result(TRACEBACK, f"{text} ({Path(last.filename).name}:{last.lineno})")
