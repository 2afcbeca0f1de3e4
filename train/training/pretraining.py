"""Pretraining: the regularizer alone, on clips with or without labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from ..data.crops import Batch
from ..models.base import Encoder
from ..regularizers.base import Regularizer
from .objective import Losses


class Pretraining(nn.Module):
    """An encoder with a regularizer of its embedding, as one module for the optimizer and DDP.

    Parameters
    ----------
    encoder
        The encoder.
    regularizer
        Regularizer of its embedding.
    alpha
        Weight of the regularizer.
    """

    def __init__(self, encoder: Encoder, regularizer: Regularizer, alpha: float) -> None:
        super().__init__()
        self.encoder, self.regularizer, self.alpha = encoder, regularizer, alpha

    def forward(self, batch: Batch, scale: float = 1.0) -> Losses:
        """Compute the losses of a batch of crops, that of the task being 0; see `Objective`."""
        loss = self.regularizer(self.encoder(batch.audio), batch.features)
        return Losses(scale * self.alpha * loss, torch.zeros_like(loss), loss)


@torch.no_grad()
def mean_regularization(fabric: Fabric, objective: Pretraining, loader: Iterable[Any]) -> float:
    """Return the regularizer's value in evaluation mode, as mean over the clips of all devices.

    A regularizer that compares clips compares those of one batch.

    Parameters
    ----------
    fabric
        Devices and precision.
    objective
        Encoder and regularizer; they are set to evaluation mode.
    loader
        Batches of this device's share of the clips.
    """
    objective.eval()
    total = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    for loaded in loader:
        batch = fabric.to_device(loaded)
        with fabric.autocast():
            value = objective(batch).regularization.double()
        clips = len(batch.clip)
        total += torch.stack([value * clips, torch.full_like(value, clips)])
    summed: Any = fabric.all_reduce(total, reduce_op="sum")
    return float(summed[0] / summed[1])
