"""An estimate of the duration of training, from a few steps."""

from __future__ import annotations

import time

from featreg.datasets.console import say

SKIPPED = 2
"""Number of steps before the timed ones; the first steps are slower."""

TIMED = 5
"""Number of steps whose duration is measured."""

LEAST_S = 60.0
"""Shortest duration that is worth a message, in seconds."""


class TimeLeft:
    """Says once how long the rest of training will take.

    Parameters
    ----------
    steps
        Number of all training steps of a run.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._count, self._began = steps, 0, 0.0

    def step(self, done: int) -> None:
        """Count a step, after which `done` steps are done, including those before resuming."""
        self._count += 1
        if self._count == SKIPPED:
            self._began = time.monotonic()
        elif self._count == SKIPPED + TIMED:
            each = (time.monotonic() - self._began) / TIMED
            left = self._steps - done
            if left * each >= LEAST_S:
                say(
                    f"training will take about {duration(left * each)} ({left} steps of "
                    f"{each:.2g} s), without validation"
                )


def duration(seconds: float) -> str:
    """Return a duration with its unit, such as ``35 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
