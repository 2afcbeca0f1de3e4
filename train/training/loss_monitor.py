"""Sums of the losses over an epoch, and an error at the first loss that is not finite."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from featreg.datasets.base import FeatregError

from ..data.crops import Batch
from .objective import Losses


class _Step(NamedTuple):
    """Losses and gradient norm of a step, on this device and as mean over the devices."""

    number: int
    local: Tensor
    mean: Tensor
    copied: torch.cuda.Event | None
    clips: Tensor

    def values(self) -> list[float]:
        """Return the means, after waiting for their copy from the accelerator."""
        if self.copied is not None:
            self.copied.synchronize()
        values: list[float] = self.mean.tolist()
        return values


class LossMonitor:
    """Sums of the losses over the steps of one epoch and over all devices.

    A step is checked after the next one has been queued, so that an accelerator never waits
    for the check. All devices check the same means, so that they stop at the same step and
    none waits for another.

    Parameters
    ----------
    fabric
        The devices, which share the batches.
    clip_ids
        Ids of the training clips.
    where
        Run and epoch, for messages.
    sums
        Sums over the finished steps of an interrupted epoch; else empty.
    """

    def __init__(
        self,
        fabric: Fabric,
        clip_ids: np.ndarray[Any, np.dtype[np.str_]],
        where: str,
        sums: list[float],
    ) -> None:
        self._fabric, self._clip_ids, self._where = fabric, clip_ids, where
        start = sums or [0.0] * len(Losses._fields)
        self._sums = torch.tensor(start, dtype=torch.float64, device=fabric.device)
        self._last: _Step | None = None

    @property
    def sums(self) -> list[float]:
        """Return the sum of each loss over the steps so far."""
        values: list[float] = self._sums.tolist()
        return values

    def add(self, step: int, losses: Losses, norm: Tensor, batch: Batch) -> float:
        """Add the losses of a step, and check the previous step.

        Parameters
        ----------
        step
            Index of the step in the epoch.
        losses
            Losses of this device's share of the batch.
        norm
            Norm of the gradient.
        batch
            This device's share of the batch.

        Returns
        -------
        Total loss of the previous step; NaN at the first step.

        Raises
        ------
        FeatregError
            If a loss or the gradient of the previous step is not finite.
        """
        local = torch.stack([*losses, norm]).detach()
        mean: Any = self._fabric.all_reduce(local.clone(), reduce_op="mean")
        self._sums += mean[: len(losses)].double()
        previous = self.check()
        self._last = _Step(step, local, *_to_host(mean), batch.clip)
        return previous

    @property
    def finite(self) -> bool:
        """Return whether all losses and the gradient of the last step are finite."""
        return self._last is None or all(map(math.isfinite, self._last.values()))

    def check(self) -> float:
        """Return the total loss of the last step.

        Raises
        ------
        FeatregError
            If a loss or the gradient of the step is not finite.
        """
        if self._last is None:
            return math.nan
        if not self.finite:
            self._fail(self._last)
        return self._last.values()[0]

    def _fail(self, step: _Step) -> None:
        """Raise an error that names the clips of all devices whose loss is not finite."""
        *losses, norm = step.values()
        bad_loss = not all(map(math.isfinite, losses))
        suspects = torch.zeros(len(self._clip_ids), device=step.local.device)
        if not bad_loss or not step.local[:-1].isfinite().all():
            suspects[step.clips] = 1
        total: Any = self._fabric.all_reduce(suspects, reduce_op="sum")
        if not self._fabric.is_global_zero:
            sys.exit(0)  # device 0 reports the error
        reason = f"the loss is {losses[0]}" if bad_loss else f"the norm of the gradient is {norm}"
        names = ", ".join(self._clip_ids[total.cpu().numpy() > 0])
        raise FeatregError(
            f"{self._where}: {reason} in step {step.number + 1}, for a batch of the clips {names}; "
            "check these with `prep verify`, or try a lower --lr or --precision float32"
        )


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Copy values to the CPU asynchronously; return the copy and the event of its completion."""
    if not values.is_cuda:
        return values, None
    host = torch.empty_like(values, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return host, copied
