"""Resampling of a feature's frames in time to a target time grid, as operations on arrays.

With a resolution of r seconds, target frame k covers the seconds [k r, (k+1) r) of its clip, and
a clip of d seconds has ceil(d / r) target frames. There are three modes:

``repeat``
    The method of the paper: from the start of the clip, each frame is repeated, or groups of
    frames are averaged, by a whole number. If the hop is not a multiple of r (or the reverse),
    the frames drift in time.
``area``
    Each target frame is the mean over its r seconds of the piecewise constant signal in which a
    source frame extends halfway to its neighbors. There is no drift, and the integral over time
    is preserved.
``linear``
    Linear interpolation between the centers of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from featreg.datasets.shards.timing import FrameTiming

# Incremented when a release changes the values, so that existing aligned shards are rewritten.
REVISION = 1

Mode = Literal["repeat", "area", "linear"]
MODES: tuple[Mode, ...] = get_args(Mode)

Frames = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]


def target_frames(duration_s: float, resolution_s: float) -> int:
    """Number of target frames: ceil(duration_s / resolution_s), at least 1.

    A remainder below a millionth of a frame is ignored as a rounding error.
    """
    return max(1, math.ceil(duration_s / resolution_s - 1e-6))


def align_span(
    read: Callable[[int, int], Frames],
    total: int,
    timing: FrameTiming,
    resolution_s: float,
    duration_s: float,
    mode: Mode,
    span: range,
) -> npt.NDArray[np.float32]:
    """Resample frames in time to a range of frames of the target time grid.

    Parameters
    ----------
    read
        Function that returns source frames ``first`` to ``last - 1``, shape (last - first, dim);
        only the required frames are read.
    total
        Number of source frames.
    timing
        Time grid of the source frames.
    resolution_s
        Seconds per target frame, above 0.
    duration_s
        Length of the clip in seconds, above 0.
    mode
        ``repeat``, ``area`` or ``linear``; see the documentation of this module.
    span
        Range of target frames, with step 1, within ``target_frames(duration_s, resolution_s)``.

    Returns
    -------
    float32 of shape (len(span), dim).

    Raises
    ------
    ValueError
        If there are no frames, or resolution or duration is not above 0.
    """
    if not total:
        raise ValueError("expected at least 1 frame to align, found none")
    if not (resolution_s > 0 and duration_s > 0):
        raise ValueError(
            f"resolution and duration must be above 0 s, got {resolution_s} and {duration_s}"
        )
    source = _Source(read, total, timing)
    aligned = _MODES[mode](source, resolution_s, duration_s, np.arange(span.start, span.stop))
    return np.ascontiguousarray(aligned, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Source:
    """Source frames, read on demand."""

    read: Callable[[int, int], Frames]
    total: int
    timing: FrameTiming


def _repeat(source: _Source, r: float, duration_s: float, targets: Indices) -> Frames:
    """Repeat each frame round(hop / r) times, or average groups of round(r / hop) frames.

    Surplus frames are dropped, and missing ones are copies of the last frame.
    """
    hop_s, total = source.timing.hop_s, source.total
    if hop_s >= r:
        wanted = np.minimum(targets // round(hop_s / r), total - 1)
        first = int(wanted[0])
        repeated: Frames = source.read(first, int(wanted[-1]) + 1)[wanted - first]
        return repeated
    together = round(r / hop_s)
    wanted = np.minimum(targets, (total - 1) // together)  # groups; the last one may be shorter
    first, last = int(wanted[0]), int(wanted[-1]) + 1
    frames = source.read(first * together, min(last * together, total))
    starts = np.arange(0, len(frames), together)
    counts = np.minimum(starts + together, len(frames)) - starts
    means = np.add.reduceat(frames, starts, axis=0, dtype=np.float64) / counts[:, None]
    held: Frames = means[wanted - first]
    return held


def _area(source: _Source, r: float, duration_s: float, targets: Indices) -> Frames:
    """Mean over each target frame of the piecewise constant signal of the source frames."""
    centers = source.timing.centers(source.total)
    # Cells meet halfway between centers; the first and last extend to the ends of the clip.
    inner = np.clip((centers[:-1] + centers[1:]) / 2, 0.0, duration_s)
    edges = np.concatenate([[0.0], inner, [duration_s]])
    bounds = np.minimum(np.append(targets, targets[-1] + 1) * r, duration_s)
    cell = np.clip(np.searchsorted(edges, bounds, side="right") - 1, 0, source.total - 1)
    first, last = int(cell[0]), int(cell[-1]) + 1
    frames, cell, edges = source.read(first, last), cell - first, edges[first : last + 1]
    integral = np.zeros((len(edges), frames.shape[1]))
    np.cumsum(frames * np.diff(edges)[:, None], axis=0, out=integral[1:])
    upto = integral[cell] + frames[cell] * (bounds - edges[cell])[:, None]
    means: Frames = np.diff(upto, axis=0) / np.diff(bounds)[:, None]
    return means


def _linear(source: _Source, r: float, duration_s: float, targets: Indices) -> Frames:
    """Interpolate at the center of each target frame; extrapolate with the first and last frame."""
    timing, total = source.timing, source.total
    middles = (targets + 0.5) * r
    position = np.clip((middles - timing.first_center_s) / timing.hop_s, 0, total - 1)
    left = np.minimum(position.astype(np.intp), max(0, total - 2))
    right = np.minimum(left + 1, total - 1)
    weight = (position - left)[:, None]
    first = int(left[0])
    frames = source.read(first, int(right[-1]) + 1)
    mixed: Frames = frames[left - first] * (1 - weight) + frames[right - first] * weight
    return mixed


_MODES: dict[Mode, Callable[[_Source, float, float, Indices], Frames]] = {
    "repeat": _repeat,
    "area": _area,
    "linear": _linear,
}
