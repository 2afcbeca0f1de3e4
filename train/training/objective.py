"""What training minimises: the task's loss and, weighted by alpha, a regularizer."""

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
    """Scalars: ``total = task + alpha * regularization``."""

    total: Tensor
    task: Tensor
    regularization: Tensor


class Objective(nn.Module):
    """A tagger with its losses, as one module: what the optimizer and DDP see.

    Multi-label: binary cross-entropy, mean over the annotated labels of the batch.
    Single-label: cross-entropy, mean over the annotated clips of the batch.

    Over several devices the batch is that of all of them: the mean over devices of the
    task's loss, and of its gradient, which DDP takes, is what one device would find for the
    same outputs. Batch normalisation and a regularizer are local: they see each device's
    share alone.

    Parameters
    ----------
    tagger
        What is trained.
    regularizer
        Shapes its embedding; None for the task's loss alone.
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
        """Losses of one batch of crops."""
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
    """How many there are, shared equally between the devices; one in all if there is none."""
    count = known.sum()
    if not (dist.is_available() and dist.is_initialized()):
        return count.clamp(min=1)
    dist.all_reduce(count)
    return count.clamp(min=1) / dist.get_world_size()
