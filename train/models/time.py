"""Resampling of features to the number of frames of the embedding."""

from __future__ import annotations

import torch
from torch import Tensor


def to_frames(v: Tensor, frames: int) -> Tensor:
    """Resample features to `frames` frames by repetition or average pooling.

    Both time grids span the same time. Target frame k is the mean of v over the interval
    [k, k + 1) / frames of that time, in which each source frame is weighted by its overlap
    with the interval. For integer ratios this is plain averaging or plain repetition.

    Parameters
    ----------
    v
        Features of shape (batch, T_F, B_F), T_F >= 1.
    frames
        T_E, number of target frames, at least 1.

    Returns
    -------
    Features of shape (batch, frames, B_F).
    """
    sources = v.shape[1]
    if sources == frames:
        return v
    # In units of 1 / (sources * frames) of the total time, all frame borders are integers.
    source = torch.arange(sources, device=v.device) * frames
    target = torch.arange(frames, device=v.device)[:, None] * sources
    begin = torch.maximum(source, target)
    end = torch.minimum(source + frames, target + sources)
    weights = (end - begin).clamp(min=0).to(v.dtype) / sources
    return weights @ v
