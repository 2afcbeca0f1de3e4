"""Optimizer and learning rate of each epoch and step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn, optim

WARM_UP = 0.05
"""Fraction of a cosine stage in which the learning rate increases."""

ALPHA_SCHEDULES = ("constant", "warmup", "decay")
"""Schedules of the regularizer's weight, see `alpha_scale`."""

ALPHA_WARM_UP = 0.1
"""Fraction of the steps in which the regularizer's weight increases."""


def alpha_scale(name: str, done: float) -> float:
    """Return the factor by which the regularizer's weight is multiplied in a step.

    Parameters
    ----------
    name
        ``constant``: 1. ``warmup``: increases linearly from 0 to 1 in the first `ALPHA_WARM_UP` of
        all steps. ``decay``: decays from 1 to 0 along half a cosine over all steps.
    done
        Fraction of all steps before this one, in [0, 1).
    """
    if name == "warmup":
        return min(1.0, done / ALPHA_WARM_UP)
    if name == "decay":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive epochs with one optimizer.

    Every stage except the first starts from the weights of the best epoch so far.

    Attributes
    ----------
    optimizer
        ``adam``, ``sgd`` (Nesterov, momentum 0.9) or ``adamw``.
    share
        Fraction of the schedule's epochs.
    lr
        Highest learning rate, as a multiple of the schedule's `lr`.
    weight_decay
        Weight decay, coupled to the gradient (adam, sgd) or decoupled from it (adamw).
    cosine
        Whether the learning rate increases linearly during `WARM_UP` and then decays to 0
        along half a cosine (True), or is constant (False).
    """

    optimizer: Literal["adam", "sgd", "adamw"]
    share: float = 1.0
    lr: float = 1.0
    weight_decay: float = 1e-4
    cosine: bool = False


SCHEDULES: Mapping[str, tuple[Stage, ...]] = {
    # Won et al. 2020: Adam 1e-4 for 60 epochs, SGD 1e-3 for 20, 1e-4 for 20, 1e-5 for 100.
    # The published code intends to reload the best model at each switch, but never does.
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
    """A schedule for a given number of epochs. It has no state: all values depend on the step.

    Parameters
    ----------
    name
        A name in `SCHEDULES`.
    epochs
        Total number of epochs. Every stage receives its share, rounded; the first stage
        receives at least one epoch.
    lr
        Base learning rate, by which the rates of the stages are multiplied.
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
        """Return the index of the stage that `epoch` (0 to epochs - 1) belongs to."""
        return next(number for number, end in enumerate(self._ends()) if epoch < end)

    def optimizer(self, stage: int, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """Return a new optimizer for the stage with index `stage`."""
        from torch import optim

        settings = SCHEDULES[self.name][stage]
        lr, decay = self.lr * settings.lr, settings.weight_decay
        if settings.optimizer == "sgd":
            return optim.SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=decay)
        kind = optim.Adam if settings.optimizer == "adam" else optim.AdamW
        return kind(parameters, lr, weight_decay=decay)

    def rate(self, epoch: int, through: float) -> float:
        """Return the learning rate of a step.

        Parameters
        ----------
        epoch
            Epoch, 0 to epochs - 1.
        through
            Fraction of the epoch's steps before this one, in [0, 1).
        """
        number = self.stage(epoch)
        stage, ends = SCHEDULES[self.name][number], [0, *self._ends()]
        highest = self.lr * stage.lr
        if not stage.cosine:
            return highest
        done = (epoch - ends[number] + through) / (ends[number + 1] - ends[number])
        if done < WARM_UP:
            return highest * max(0.01, done / WARM_UP)
        return highest * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
