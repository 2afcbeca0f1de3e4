"""Which optimizer trains, at which learning rate, in which epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn, optim

WARM_UP = 0.05
"""Share of a cosine stage in which the rate rises."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Epochs with one optimizer. Every stage but the first starts from the best epoch so far.

    Attributes
    ----------
    optimizer
        ``adam``, ``sgd`` (Nesterov, momentum 0.9) or ``adamw``.
    share
        Of all epochs.
    lr
        As a multiple of the schedule's `lr`.
    weight_decay
        Added to the gradient (adam, sgd) or taken off the weights (adamw).
    cosine
        Whether the rate rises linearly over the `WARM_UP` and then falls to 0 along half
        a cosine, or is constant.
    """

    optimizer: Literal["adam", "sgd", "adamw"]
    share: float = 1.0
    lr: float = 1.0
    weight_decay: float = 1e-4
    cosine: bool = False


SCHEDULES: Mapping[str, tuple[Stage, ...]] = {
    # Won et al. 2020: Adam 1e-4 for 60 epochs, SGD 1e-3 for 20, 1e-4 for 20, 1e-5 for 100.
    # The published code means to reload the best model at each switch but never does.
    "published": (
        Stage("adam", 0.3, 1.0),
        Stage("sgd", 0.1, 10.0),
        Stage("sgd", 0.1, 1.0),
        Stage("sgd", 0.5, 0.1),
    ),
    "short": (Stage("adamw", weight_decay=1e-2, cosine=True),),
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule stretched to a number of epochs; all of it is a function of the step.

    Parameters
    ----------
    name
        A name in `SCHEDULES`.
    epochs
        In all; every stage gets its share, rounded, and the first at least one.
    lr
        The rate that the stages' rates are multiples of.
    """

    name: str
    epochs: int
    lr: float

    def _ends(self) -> list[int]:
        shares, ends = 0.0, []
        for stage in SCHEDULES[self.name]:
            shares += stage.share
            ends.append(max(1, round(shares * self.epochs)))
        return ends

    def stage(self, epoch: int) -> int:
        """Number of the stage that `epoch` (0 to epochs - 1) belongs to."""
        return next(number for number, end in enumerate(self._ends()) if epoch < end)

    def optimizer(self, stage: int, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """A fresh optimizer for a stage."""
        from torch import optim

        what = SCHEDULES[self.name][stage]
        lr, decay = self.lr * what.lr, what.weight_decay
        if what.optimizer == "sgd":
            return optim.SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=decay)
        kind = optim.Adam if what.optimizer == "adam" else optim.AdamW
        return kind(parameters, lr, weight_decay=decay)

    def rate(self, epoch: int, through: float) -> float:
        """Learning rate of a step.

        Parameters
        ----------
        epoch
            0 to epochs - 1.
        through
            Share of the epoch's steps before this one, in [0, 1).
        """
        number = self.stage(epoch)
        what, ends = SCHEDULES[self.name][number], [0, *self._ends()]
        highest = self.lr * what.lr
        if not what.cosine:
            return highest
        done = (epoch - ends[number] + through) / (ends[number + 1] - ends[number])
        if done < WARM_UP:
            return highest * max(0.01, done / WARM_UP)
        return highest * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
