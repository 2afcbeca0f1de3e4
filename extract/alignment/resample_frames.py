"""Streams onto one time grid: pure arithmetic on arrays, no files.

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
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from featreg.datasets.shards.timing import FrameTiming

# Raised by a release that changes the numbers: shards aligned before are then written again.
REVISION = 1

Mode = Literal["repeat", "area", "linear"]
MODES: tuple[Mode, ...] = get_args(Mode)

Rows = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]


def target_frames(duration_s: float, resolution_s: float) -> int:
    """Rows of `resolution_s` seconds that cover `duration_s` seconds: ceil(d / r), at least 1.

    A rest below a millionth of a row is rounding, not audio.
    """
    return max(1, math.ceil(duration_s / resolution_s - 1e-6))


def align(
    rows: Rows, timing: FrameTiming, resolution_s: float, duration_s: float, mode: Mode = "repeat"
) -> npt.NDArray[np.float32]:
    """A stream's rows on the target time grid.

    Parameters
    ----------
    rows
        Shape (source rows, dim), at least one row.
    timing
        When they happen.
    resolution_s
        Seconds a target row, above 0.
    duration_s
        Length of the clip, in seconds.
    mode
        ``repeat``, ``area`` or ``linear``; see this module.

    Returns
    -------
    float32 of shape (``target_frames(duration_s, resolution_s)``, dim).

    Raises
    ------
    ValueError
        If there is no row, or resolution or duration is not above 0.
    """
    wanted = target_frames(duration_s, resolution_s) if resolution_s > 0 and duration_s > 0 else 0
    return align_span(
        lambda first, last: rows[first:last],
        len(rows),
        timing,
        resolution_s,
        duration_s,
        mode,
        range(wanted),
    )


def align_span(
    read: Callable[[int, int], Rows],
    total: int,
    timing: FrameTiming,
    resolution_s: float,
    duration_s: float,
    mode: Mode,
    span: range,
) -> npt.NDArray[np.float32]:
    """Some of the rows that `align` gives, from the source rows that they need and no others.

    Parameters
    ----------
    read
        The source rows from a first to before a last, shape (last - first, dim).
    total
        Source rows that there are.
    timing, resolution_s, duration_s, mode
        As for `align`.
    span
        Target rows, without gaps.

    Returns
    -------
    float32 of shape (len(span), dim).

    Raises
    ------
    ValueError
        As `align` does.
    """
    if not total:
        raise ValueError("cannot align a stream without rows")
    if not (resolution_s > 0 and duration_s > 0):
        raise ValueError(
            f"resolution and duration must be above 0 s, got {resolution_s} and {duration_s}"
        )
    source = _Source(read, total, timing)
    aligned = _MODES[mode](source, resolution_s, duration_s, np.arange(span.start, span.stop))
    return np.ascontiguousarray(aligned, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows that are read as they are needed."""

    read: Callable[[int, int], Rows]
    total: int
    timing: FrameTiming


def _repeat(source: _Source, r: float, duration_s: float, targets: Indices) -> Rows:
    """Repeat round(hop / r) times, or average round(r / hop) rows; then cut, or hold the last."""
    hop_s, total = source.timing.hop_s, source.total
    if hop_s >= r:
        wanted = np.minimum(targets // round(hop_s / r), total - 1)
        first = int(wanted[0])
        repeated: Rows = source.read(first, int(wanted[-1]) + 1)[wanted - first]
        return repeated
    together = round(r / hop_s)
    wanted = np.minimum(targets, (total - 1) // together)  # groups of rows, the last one shorter
    first, last = int(wanted[0]), int(wanted[-1]) + 1
    rows = source.read(first * together, min(last * together, total))
    starts = np.arange(0, len(rows), together)
    counts = np.minimum(starts + together, len(rows)) - starts
    means = np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / counts[:, None]
    held: Rows = means[wanted - first]
    return held


def _area(source: _Source, r: float, duration_s: float, targets: Indices) -> Rows:
    """Mean over each target row of the piecewise constant signal that the cells make."""
    centers = source.timing.centers(source.total)
    # Cells meet halfway between centres; the first and last reach to the clip's ends.
    inner = np.clip((centers[:-1] + centers[1:]) / 2, 0.0, duration_s)
    edges = np.concatenate([[0.0], inner, [duration_s]])
    bounds = np.minimum(np.append(targets, targets[-1] + 1) * r, duration_s)
    cell = np.clip(np.searchsorted(edges, bounds, side="right") - 1, 0, source.total - 1)
    first, last = int(cell[0]), int(cell[-1]) + 1
    rows, cell, edges = source.read(first, last), cell - first, edges[first : last + 1]
    integral = np.zeros((len(edges), rows.shape[1]))
    np.cumsum(rows * np.diff(edges)[:, None], axis=0, out=integral[1:])
    upto = integral[cell] + rows[cell] * (bounds - edges[cell])[:, None]
    means: Rows = np.diff(upto, axis=0) / np.diff(bounds)[:, None]
    return means


def _linear(source: _Source, r: float, duration_s: float, targets: Indices) -> Rows:
    """Interpolate at the middle of each target row; hold the ends."""
    timing, total = source.timing, source.total
    middles = (targets + 0.5) * r
    position = np.clip((middles - timing.first_center_s) / timing.hop_s, 0, total - 1)
    left = np.minimum(position.astype(np.intp), max(0, total - 2))
    right = np.minimum(left + 1, total - 1)
    weight = (position - left)[:, None]
    first = int(left[0])
    rows = source.read(first, int(right[-1]) + 1)
    mixed: Rows = rows[left - first] * (1 - weight) + rows[right - first] * weight
    return mixed


_MODES: dict[Mode, Callable[[_Source, float, float, Indices], Rows]] = {
    "repeat": _repeat,
    "area": _area,
    "linear": _linear,
}
