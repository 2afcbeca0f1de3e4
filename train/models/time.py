"""Features on the embedding's frames."""

from __future__ import annotations

import torch
from torch import Tensor


def to_frames(v: Tensor, frames: int) -> Tensor:
    """Bring features to `frames` frames by repeating or average-pooling.

    Both grids span the same time. Target frame k is the mean of v over
    [k, k + 1) / frames of that time, every source row weighted by its overlap with it.
    For whole ratios that is plain averaging, or plain repetition; in between, the rows
    on a border count for both sides in proportion.

    Parameters
    ----------
    v
        Shape (batch, T_F, B_F), T_F >= 1.
    frames
        T_E >= 1.

    Returns
    -------
    Shape (batch, frames, B_F).
    """
    rows = v.shape[1]
    if rows == frames:
        return v
    # In units of 1 / (rows * frames) of the time every border is a whole number.
    source = torch.arange(rows, device=v.device) * frames
    target = torch.arange(frames, device=v.device)[:, None] * rows
    begin = torch.maximum(source, target)
    end = torch.minimum(source + frames, target + rows)
    weights = (end - begin).clamp(min=0).to(v.dtype) / rows
    return weights @ v
