"""The training loss: the task's loss and, weighted by alpha, a regularizer."""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from featreg.datasets.base import Task

from ..data.crops import Batch
from ..models.base import Output, Tagger
from ..regularizers.base import Regularizer


class Losses(NamedTuple):
    """Scalar losses, with ``total = task + alpha * regularization``."""

    total: Tensor
    task: Tensor
    regularization: Tensor


class Objective(nn.Module):
    """A classifier with its losses, as one module for the optimizer and DDP.

    Multi-label: binary cross-entropy, mean over the annotated labels of the batch.
    Single-label: cross-entropy, mean over the annotated clips of the batch.

    On several devices, the mean is over the batches of all devices: the task's loss and its
    gradient, averaged over devices by DDP, equal those of one device for the same outputs.
    Batch normalization and regularizers are computed on each device's share of the batch.

    Parameters
    ----------
    tagger
        The classifier.
    regularizer
        Regularizer of its embedding; None for the task's loss only.
    alpha
        Weight of the regularizer.
    task
        ``multi-label`` or ``single-label``.
    """

    def __init__(
        self, tagger: Tagger, regularizer: Regularizer | None, alpha: float, task: Task
    ) -> None:
        super().__init__()
        self.tagger = tagger
        self.regularizer = regularizer
        self.alpha = alpha
        self.task = task

    def forward(self, batch: Batch) -> Losses:
        """Compute the losses of a batch of crops."""
        output = self.tagger(batch.audio, batch.features)
        task = self._task_loss(output, batch)
        if self.regularizer is None:
            return Losses(task, task, task.new_zeros(()))
        regularization = self.regularizer(output.embedding, batch.features)
        return Losses(task + self.alpha * regularization, task, regularization)

    def _task_loss(self, output: Output, batch: Batch) -> Tensor:
        logits = output.logits.float()
        if self.task == "single-label":
            losses = F.cross_entropy(logits, batch.label.argmax(dim=1), reduction="none")
            known = batch.label_mask.amax(dim=1)
            return (losses * known).sum() / _share(known)
        losses = F.binary_cross_entropy_with_logits(logits, batch.label, reduction="none")
        return (losses * batch.label_mask).sum() / _share(batch.label_mask)


def _share(known: Tensor) -> Tensor:
    """Return the sum of `known` over all devices, at least 1, divided by their number."""
    count = known.sum()
    if not (dist.is_available() and dist.is_initialized()):
        return count.clamp(min=1)
    dist.all_reduce(count)
    return count.clamp(min=1) / dist.get_world_size()
