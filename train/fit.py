"""The training loop: epochs of random crops, validation, the best epoch, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch.optim import Optimizer

from featreg.datasets.base import FeatregError
from featreg.datasets.console import Advance, progress, say
from featreg.datasets.shards import atomic_path

from .checkpoint import Progress
from .crops import EpochOrder
from .metrics import METRICS
from .presets import Config
from .schedule import Schedule


@dataclass
class Fit:
    """Trains an objective for the epochs of its schedule.

    Attributes
    ----------
    fabric
        Devices and precision.
    config
        The recipe and the seed.
    objective
        An `objective.Objective`, set up by `fabric`.
    loader, order
        Batches of crops, set up by `fabric`, and the order that they come in.
    validate
        Metrics of the validation split by name.
    clip_ids
        Names of the training clips, for messages.
    folder
        Where ``state.pt`` and ``metrics.csv`` are kept.
    """

    fabric: Fabric
    config: Config
    objective: Any
    loader: Any
    order: EpochOrder
    validate: Callable[[], Mapping[str, float]]
    clip_ids: np.ndarray[Any, np.dtype[np.str_]]
    folder: Path

    def run(self) -> Progress:
        """Train to the end of the schedule, from where a run before stopped.

        Leaves the objective with the weights of the best epoch.

        Raises
        ------
        FeatregError
            If a loss is not finite; the message names the batch's clips.
        """
        recipe = self.config.recipe
        schedule = Schedule(recipe.schedule, recipe.epochs, recipe.lr)
        state = Progress.load(self.folder / "state.pt")
        optimizer: Any = None
        if state.epoch:
            say(f"going on after epoch {state.epoch}")
            self.objective.load_state_dict(state.objective)
            optimizer = self._optimizer(schedule, schedule.stage(state.epoch - 1))
            optimizer.load_state_dict(state.optimizer)
        with progress("training", recipe.epochs * len(self.order)) as advance:
            advance(state.epoch * len(self.order))
            while state.epoch < recipe.epochs and not self._out_of_patience(state):
                stage = schedule.stage(state.epoch)
                if state.epoch == 0 or stage != schedule.stage(state.epoch - 1):
                    if state.best:
                        self.objective.load_state_dict(state.best)
                    optimizer = self._optimizer(schedule, stage)
                self._epoch(state, schedule, optimizer, advance)
        self.objective.load_state_dict(state.best)
        return state

    def _optimizer(self, schedule: Schedule, stage: int) -> Any:
        return self.fabric.setup_optimizers(schedule.optimizer(stage, self.objective.parameters()))

    def _out_of_patience(self, state: Progress) -> bool:
        patience = self.config.recipe.patience
        return 0 < patience <= state.epoch - state.best_epoch

    def _epoch(
        self, state: Progress, schedule: Schedule, optimizer: Optimizer, advance: Advance
    ) -> None:
        began = time.monotonic()
        losses = self._train(state.epoch, schedule, optimizer, advance)
        metrics = self.validate()
        name = self.config.metric
        row = {
            "epoch": state.epoch + 1,
            "lr": schedule.rate(state.epoch, 0.0),
            **losses,
            **{f"valid_{key}": value for key, value in metrics.items()},
            "seconds": round(time.monotonic() - began, 3),
        }
        state.epoch += 1
        state.history.append(row)
        state.objective = self.objective.state_dict()
        state.optimizer = optimizer.state_dict()
        if not state.best or METRICS[name].improves(metrics[name], state.best_value):
            state.best_value, state.best_epoch = metrics[name], state.epoch
            state.best = {key: values.clone() for key, values in state.objective.items()}
        if self.fabric.is_global_zero:
            state.save(self.folder / "state.pt")
            with atomic_path(self.folder / "metrics.csv") as temporary:
                pd.DataFrame(state.history).to_csv(temporary, index=False)
        self.fabric.barrier()

    def _train(
        self, epoch: int, schedule: Schedule, optimizer: Optimizer, advance: Advance
    ) -> dict[str, float]:
        """One pass over the training clips; the mean of each loss."""
        # Dropout draws from the global generator: what it draws depends on the epoch alone.
        entropy = (self.config.seed, 3, epoch, self.fabric.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.order.epoch = epoch
        self.objective.train()
        sums = np.zeros(3)
        for step, batch in enumerate(self.loader):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(epoch, step / len(self.order))
            optimizer.zero_grad()
            losses = self.objective(batch)
            if not math.isfinite(total := losses.total.item()):
                self._stop(epoch, step, total, batch.clip.tolist())
            self.fabric.backward(losses.total)
            if self.config.recipe.clip_norm:
                self.fabric.clip_gradients(
                    self.objective, optimizer, max_norm=self.config.recipe.clip_norm
                )
            optimizer.step()
            sums += [value.item() for value in losses]
            advance(note=f"epoch {epoch + 1}, loss {total:.3f}")
        means = sums / len(self.order)
        return dict(zip(("loss", "task_loss", "reg_loss"), means.tolist(), strict=True))

    def _stop(self, epoch: int, step: int, total: float, batch: list[int]) -> None:
        clips = ", ".join(self.clip_ids[batch])
        raise FeatregError(
            f"{self.folder.name}: the loss is {total} in epoch {epoch + 1}, step {step + 1}, on "
            f"the clips {clips}; look at these with `prep verify`, or try a lower --lr or "
            "--precision float32"
        )
