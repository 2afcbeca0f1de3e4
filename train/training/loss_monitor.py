"""The losses of an epoch: their means, and a stop at the first that is no number."""

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
    """Losses and the gradient's norm: of this device's share, and the mean over devices."""

    number: int
    mine: Tensor
    mean: Tensor
    copied: torch.cuda.Event | None
    clips: Tensor

    def values(self) -> list[float]:
        """The means, once they are there."""
        if self.copied is not None:
            self.copied.synchronize()
        values: list[float] = self.mean.tolist()
        return values


class Watch:
    """Adds up the losses of the steps of one epoch, over all devices.

    A step is judged when the next one has been queued: an accelerator never waits for
    the judgement. All devices see the same numbers, so that they stop at the same step,
    and none is left waiting for another.

    Parameters
    ----------
    fabric
        Its devices share the batches.
    clip_ids
        Names of the training clips.
    where
        Names run and epoch, for messages.
    sums
        Of the steps already taken, where the epoch was interrupted; else empty.
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
        """Sum of each loss over the steps so far."""
        values: list[float] = self._sums.tolist()
        return values

    def add(self, step: int, losses: Losses, norm: Tensor, batch: Batch) -> float:
        """Take note of a step, and judge the one before.

        Parameters
        ----------
        step
            Its number in the epoch, from 0.
        losses
            Of this device's share of the batch.
        norm
            Of the gradient.
        batch
            The share.

        Returns
        -------
        Total loss of the step before; NaN at the first.

        Raises
        ------
        FeatregError
            If a loss or the gradient of the step before is not finite.
        """
        mine = torch.stack([*losses, norm]).detach()
        mean: Any = self._fabric.all_reduce(mine.clone(), reduce_op="mean")
        self._sums += mean[: len(losses)].double()
        before = self.judge()
        self._last = _Step(step, mine, *_to_host(mean), batch.clip)
        return before

    @property
    def sound(self) -> bool:
        """Whether the last step is all finite."""
        return self._last is None or all(map(math.isfinite, self._last.values()))

    def judge(self) -> float:
        """Total loss of the last step; stops the run if it is not sound."""
        if self._last is None:
            return math.nan
        if not self.sound:
            self._stop(self._last)
        return self._last.values()[0]

    def _stop(self, step: _Step) -> None:
        """Name the clips of every device whose loss is not finite, in one message."""
        *losses, norm = step.values()
        lost = not all(map(math.isfinite, losses))
        suspects = torch.zeros(len(self._clip_ids), device=step.mine.device)
        if not lost or not step.mine[:-1].isfinite().all():
            suspects[step.clips] = 1
        everyone: Any = self._fabric.all_reduce(suspects, reduce_op="sum")
        if not self._fabric.is_global_zero:
            sys.exit(0)  # device 0 says it for all
        what = f"the loss is {losses[0]}" if lost else f"the gradient's norm is {norm}"
        names = ", ".join(self._clip_ids[everyone.cpu().numpy() > 0])
        raise FeatregError(
            f"{self._where}: {what} in step {step.number + 1}, on the clips {names}; look at "
            "these with `prep verify`, or try a lower --lr or --precision float32"
        )


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy that an accelerator makes when it gets there, and the sign that it did."""
    if not values.is_cuda:
        return values, None
    host = torch.empty_like(values, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return host, copied
