"""Streams onto one clock: pure arithmetic on arrays, no files.

Target row k covers the seconds [k r, (k+1) r) of its clip; there are ceil(d / r) of
them in a clip of d seconds. Three ways lead there:

``repeat``
    As in the paper: rows are repeated or averaged by whole numbers from the clip's
    start. A hop that is no multiple of r drifts against true time.
``area``
    Each target row is the mean over its r seconds, a source row standing for the
    hop-long cell around its centre. No drift, and the integral over time is kept.
``linear``
    Interpolation between row centres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from featreg.datasets.clock import Clock

Mode = Literal["repeat", "area", "linear"]
MODES: tuple[Mode, ...] = get_args(Mode)

Rows = npt.NDArray[np.floating[Any]]


def target_rows(duration_s: float, resolution_s: float) -> int:
    """Rows of `resolution_s` seconds that cover `duration_s` seconds: ceil(d / r), at least 1.

    A rest below a millionth of a row is rounding, not audio.
    """
    return max(1, math.ceil(duration_s / resolution_s - 1e-6))


def align(
    rows: Rows, clock: Clock, resolution_s: float, duration_s: float, mode: Mode = "repeat"
) -> npt.NDArray[np.float32]:
    """A stream's rows on the target clock.

    Parameters
    ----------
    rows
        Shape (source rows, dim), at least one row.
    clock
        When they happen.
    resolution_s
        Seconds a target row, above 0.
    duration_s
        Length of the clip, in seconds.
    mode
        ``repeat``, ``area`` or ``linear``; see this module.

    Returns
    -------
    float32 of shape (``target_rows(duration_s, resolution_s)``, dim).

    Raises
    ------
    ValueError
        If there is no row, or resolution or duration is not above 0.
    """
    if not len(rows):
        raise ValueError("cannot align a stream without rows")
    if not (resolution_s > 0 and duration_s > 0):
        raise ValueError(
            f"resolution and duration must be above 0 s, got {resolution_s} and {duration_s}"
        )
    aligned = _MODES[mode](rows, clock, resolution_s, duration_s)
    return np.ascontiguousarray(aligned, dtype=np.float32)


def _repeat(rows: Rows, clock: Clock, r: float, duration_s: float) -> Rows:
    """Repeat round(hop / r) times, or average round(r / hop) rows; then cut, or hold the last."""
    wanted = target_rows(duration_s, r)
    if clock.hop_s >= r:
        source = np.arange(wanted) // round(clock.hop_s / r)
        return rows[np.minimum(source, len(rows) - 1)]
    together = round(r / clock.hop_s)
    starts = np.arange(0, len(rows), together)[:wanted]
    counts = np.minimum(starts + together, len(rows)) - starts
    sums = np.add.reduceat(rows[: starts[-1] + together], starts, axis=0, dtype=np.float64)
    means = sums / counts[:, None]
    return means[np.minimum(np.arange(wanted), len(means) - 1)]


def _area(rows: Rows, clock: Clock, r: float, duration_s: float) -> Rows:
    """Mean over each target row of the piecewise constant signal that the cells make."""
    centers = clock.centers(len(rows))
    # Cells meet halfway between centres; the first and last reach to the clip's ends.
    inner = np.clip((centers[:-1] + centers[1:]) / 2, 0.0, duration_s)
    edges = np.concatenate([[0.0], inner, [duration_s]])
    integral = np.zeros((len(edges), rows.shape[1]))
    np.cumsum(rows * np.diff(edges)[:, None], axis=0, out=integral[1:])
    bounds = np.minimum(np.arange(target_rows(duration_s, r) + 1) * r, duration_s)
    cell = np.clip(np.searchsorted(edges, bounds, side="right") - 1, 0, len(rows) - 1)
    upto = integral[cell] + rows[cell] * (bounds - edges[cell])[:, None]
    means: Rows = np.diff(upto, axis=0) / np.diff(bounds)[:, None]
    return means


def _linear(rows: Rows, clock: Clock, r: float, duration_s: float) -> Rows:
    """Interpolate at the middle of each target row; hold the ends."""
    middles = (np.arange(target_rows(duration_s, r)) + 0.5) * r
    position = np.clip((middles - clock.first_center_s) / clock.hop_s, 0, len(rows) - 1)
    left = np.minimum(position.astype(np.intp), max(0, len(rows) - 2))
    right = np.minimum(left + 1, len(rows) - 1)
    weight = (position - left)[:, None]
    mixed: Rows = rows[left] * (1 - weight) + rows[right] * weight
    return mixed


_MODES: dict[Mode, Callable[[Rows, Clock, float, float], Rows]] = {
    "repeat": _repeat,
    "area": _area,
    "linear": _linear,
}
