"""The training loss: the task's loss and, weighted by alpha, a regularizer."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from featreg.datasets.base import Task

from ..data.crops import Batch
from ..models.base import Tagger
from ..regularizers.base import Regularizer


class Losses(NamedTuple):
    """Scalar losses, with ``total = task + alpha * regularization``.

    For a combination of regularizers, `regularization` is their weighted sum and alpha is 1.
    """

    total: Tensor
    task: Tensor
    regularization: Tensor


class Objective(nn.Module):
    """A classifier with its losses, as one module for the optimizer and DDP.

    Multi-label: binary cross-entropy, mean over the annotated labels of the batch.
    Single-label: cross-entropy, mean over the annotated clips of the batch.

    With label smoothing by e, the targets of a single-label task with K classes are
    ``(1 - e) * label + e / K``, and those of a multi-label task ``(1 - e) * label + e / 2``.
    With weights, each term is multiplied by that of its (unsmoothed) label; the denominator of
    the mean stays.

    On several devices, the mean is over the batches of all devices: the task's loss and its
    gradient, averaged over devices by DDP, equal those of one device for the same outputs.
    Batch normalization and regularizers are computed on each device's share of the batch.

    The unlabelled clips at the end of a batch take part in the regularizer and in the encoder's
    batch normalization, but not in the decoder and the task's loss.

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
    unlabelled
        Number of clips at the end of each batch that have no labels.
    soft
        Whether the labels of a single-label task are distributions over the classes, as after
        mixup.
    smoothing
        e, share of the uniform distribution in the targets, in [0, 1).
    weights
        Weights of absent and present classes, see `class_weights.class_weights`; None for 1.
    """

    weights: Tensor | None

    def __init__(
        self,
        tagger: Tagger,
        regularizer: Regularizer | None,
        alpha: float,
        task: Task,
        unlabelled: int = 0,
        *,
        soft: bool = False,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.tagger = tagger
        self.regularizer = regularizer
        self.alpha = alpha
        self.task = task
        self.unlabelled = unlabelled
        self.soft, self.smoothing = soft, smoothing
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, batch: Batch, scale: float = 1.0) -> Losses:
        """Compute the losses of a batch of crops, with alpha multiplied by `scale`."""
        labelled = len(batch.audio) - self.unlabelled
        output = self.tagger(batch.audio, batch.features, labelled)
        label, mask = batch.label[:labelled], batch.label_mask[:labelled]
        task = self._task_loss(output.logits.float(), label, mask)
        if self.regularizer is None:
            return Losses(task, task, task.new_zeros(()))
        regularization = self.regularizer(output.embedding, batch.features)
        return Losses(task + scale * self.alpha * regularization, task, regularization)

    def _task_loss(self, logits: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        if self.task == "single-label":
            target = label if self.soft else label.argmax(dim=1)
            losses = F.cross_entropy(
                logits, target, reduction="none", label_smoothing=self.smoothing
            )
            if self.weights is not None:
                losses = losses * (label @ self.weights[1])
            known = mask.amax(dim=1)
            return (losses * known).sum() / _share(known)
        target = label + self.smoothing * (0.5 - label) if self.smoothing else label
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self.weights is not None:
            losses = losses * torch.lerp(self.weights[0], self.weights[1], label)
        return (losses * mask).sum() / _share(mask)


def _share(known: Tensor) -> Tensor:
    """Return the sum of `known` over all devices, at least 1, divided by their number."""
    count = known.sum()
    if not (dist.is_available() and dist.is_initialized()):
        return count.clamp(min=1)
    dist.all_reduce(count)
    return count.clamp(min=1) / dist.get_world_size()
