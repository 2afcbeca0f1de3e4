"""Hostile inputs, their use, and the five possible outcomes."""

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
    """Outcome of an input, one of `OUTCOMES`, with a one-line explanation."""

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
        Function that creates the input in an empty folder, uses it, and judges the outcome.
    limit_s
        Time in seconds after which the case counts as a hang.
    """

    name: str
    run: Callable[[Path], Result]
    limit_s: float = 20.0


@dataclass(frozen=True)
class Kit:
    """Settings shared by all kinds.

    Attributes
    ----------
    folder
        Folder for inputs that several cases share.
    seed
        Seed of all random numbers.
    quick
        Whether to make a small sample of each kind.
    """

    folder: Path
    seed: int
    quick: bool

    def random(self, *names: object) -> random.Random:
        """Random generator for the item given by `names`."""
        return random.Random(f"{self.seed} {names}")

    def count(self, full: int, quick: int) -> int:
        """Number of cases to create."""
        return quick if self.quick else full


def crashed(error: BaseException) -> Result:
    """Result for an exception that is not a `FeatregError`."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return Result(TRACEBACK, f"{text} ({Path(last.filename).name}:{last.lineno})")
