"""Pooling of the frames of a clip to one vector."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Pool = Literal["mean", "max", "mean+std"]


def pooled(frames: npt.NDArray[np.float32], pool: Pool) -> npt.NDArray[np.float32]:
    """One vector for all frames of a clip.

    Parameters
    ----------
    frames
        Shape (frames, dim), at least one frame.
    pool
        ``mean``, ``max``, or ``mean+std``: the means, followed by the standard deviations of all
        frames (divided by the number of frames).

    Returns
    -------
    Shape (dim,), or (2 dim,) for ``mean+std``; float32, computed in float64.
    """
    if pool == "max":
        largest: npt.NDArray[np.float32] = frames.max(axis=0)
        return largest
    values: npt.NDArray[np.float64] = frames.mean(axis=0, dtype=np.float64)
    if pool == "mean+std":
        values = np.concatenate([values, frames.std(axis=0, dtype=np.float64)])
    single: npt.NDArray[np.float32] = values.astype(np.float32)
    return single


def column_names(name: str, dim: int, pool: Pool | None) -> list[str]:
    """Names of the columns with the values of a feature."""
    kinds = ["_mean", "_std"] if pool == "mean+std" else [""]
    return [f"{name}{kind}_{k}" for kind in kinds for k in range(dim)]
