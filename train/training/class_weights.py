"""Weights of the classes in the loss, from their numbers of training clips."""

from __future__ import annotations

import torch
from torch import Tensor

from featreg.datasets.base import Task

from ..data.aligned_set import Clips


def class_weights(clips: Clips, task: Task) -> Tensor:
    """Return weights with which all classes count equally, as ``balanced`` of scikit-learn.

    Single-label: a class with k of n clips has the weight n / (K k), where K is the number of
    classes that have clips. Multi-label: the weight is n / (2 k) where the class is present and
    n / (2 (n - k)) where it is absent, with n the number of clips in which it is annotated. The
    mean weight over the clips is 1.

    Parameters
    ----------
    clips
        The training clips; those without labels do not count.
    task
        ``multi-label`` or ``single-label``.

    Returns
    -------
    Weights of shape (2, classes): where a class is absent, and where it is present. They are 0
    where no clip has them, and in a single-label task where a class is absent.
    """
    label = torch.from_numpy(clips.label).double()
    mask = torch.from_numpy(clips.label_mask).double()
    present, absent = (label * mask).sum(0), ((1 - label) * mask).sum(0)
    if task == "single-label":
        counts = torch.stack([torch.zeros_like(present), present])
        shares, total = (present > 0).sum(), present.sum()
    else:
        counts = torch.stack([absent, present])
        shares, total = (counts > 0).sum(0), present + absent
    weights = total / (shares * counts).clamp(min=1)
    return torch.where(counts > 0, weights, 0).float()
