"""The training loop: epochs of random crops, validation, the best epoch, resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from featreg.datasets.console import Advance, progress, say

from ..config.presets import Config
from ..config.schedule import Schedule
from ..data.crops import EpochOrder
from ..evaluation.metrics import METRICS
from .checkpoint import Progress
from .loss_monitor import Watch
from .metrics_log import Journal
from .objective import Losses
from .run_files import damaged

LOSS_NAMES = ("loss", "task_loss", "reg_loss")


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
        Batches of crops, not yet on the device, and the order that they come in.
    validate
        Metrics of the validation split by name.
    clip_ids
        Names of the training clips, for messages.
    folder
        Where ``state.pt`` and the curves are kept.
    save_every
        Seconds between two writings of the state within an epoch.
    tensorboard
        Whether to log for TensorBoard.
    """

    fabric: Fabric
    config: Config
    objective: Any
    loader: Any
    order: EpochOrder
    validate: Callable[[], Mapping[str, float]]
    clip_ids: np.ndarray[Any, np.dtype[np.str_]]
    folder: Path
    save_every: float = 60.0
    tensorboard: bool = False
    _journal: Journal | None = field(default=None, init=False)

    def run(self) -> Progress:
        """Train to the end of the schedule, from where a run before stopped.

        Leaves the objective with the weights of the best epoch.

        Raises
        ------
        FeatregError
            If a loss is not finite (the message names the batch's clips), or the saved state
            is damaged or does not fit.
        """
        recipe, steps = self.config.recipe, len(self.order)
        schedule = Schedule(recipe.schedule, recipe.epochs, recipe.lr)
        state = Progress.load(self.folder / "state.pt")
        if self.fabric.is_global_zero:
            self._journal = Journal(self.folder, state, steps, self.tensorboard)
        optimizer: Any = None
        if state.begun:
            say(f"going on after epoch {state.epoch}, step {state.step} of {steps}")
            last = state.epoch if state.step else state.epoch - 1
            optimizer = self._optimizer(schedule, schedule.stage(last))
            try:
                self.objective.load_state_dict(state.objective)
                optimizer.load_state_dict(state.optimizer)
            except (KeyError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise damaged(
                    self.folder / "state.pt", f"does not fit this model ({reason})"
                ) from None
        with progress("training", recipe.epochs * steps) as advance:
            advance(state.epoch * steps + state.step)
            while state.epoch < recipe.epochs and not self._out_of_patience(state):
                if self._stage_begins(schedule, state):
                    if state.best:
                        self.objective.load_state_dict(state.best)
                    optimizer = self._optimizer(schedule, schedule.stage(state.epoch))
                self._epoch(state, schedule, optimizer, advance)
        if self._journal is not None:
            self._journal.close()
        self.objective.load_state_dict(state.best)
        return state

    @staticmethod
    def _stage_begins(schedule: Schedule, state: Progress) -> bool:
        if state.step:
            return False
        return not state.epoch or schedule.stage(state.epoch) != schedule.stage(state.epoch - 1)

    def _optimizer(self, schedule: Schedule, stage: int) -> Any:
        return self.fabric.setup_optimizers(schedule.optimizer(stage, self.objective.parameters()))

    def _out_of_patience(self, state: Progress) -> bool:
        patience = self.config.recipe.patience
        return 0 < patience <= state.epoch - state.best_epoch

    def _epoch(
        self, state: Progress, schedule: Schedule, optimizer: Optimizer, advance: Advance
    ) -> None:
        began = time.monotonic() - state.seconds
        losses = self._train(state, schedule, optimizer, advance)
        self._share_statistics()
        metrics = self.validate()
        name = self.config.metric
        row = {
            "epoch": state.epoch + 1,
            "lr": schedule.rate(state.epoch, 0.0),
            **losses,
            **{f"valid_{key}": value for key, value in metrics.items()},
            "seconds": round(time.monotonic() - began, 3),
        }
        state.epoch, state.step, state.sums, state.seconds = state.epoch + 1, 0, [], 0.0
        state.history.append(row)
        if not state.best or METRICS[name].improves(metrics[name], state.best_value):
            state.best_value, state.best_epoch = metrics[name], state.epoch
            state.best = {key: x.clone() for key, x in self.objective.state_dict().items()}
        self._save(state, optimizer)
        if self._journal is not None:
            self._journal.epoch(state.history)
        self.fabric.barrier()

    def _train(
        self, state: Progress, schedule: Schedule, optimizer: Optimizer, advance: Advance
    ) -> dict[str, float]:
        """What is left of one pass over the training clips; the mean of each loss."""
        epoch, first, steps = state.epoch, state.step, len(self.order)
        where = f"{self.folder.name}, epoch {epoch + 1}"
        watch = Watch(self.fabric, self.clip_ids, where, state.sums)
        self.order.epoch, self.order.done = epoch, first
        self.objective.train()
        saved = time.monotonic()
        began = saved - state.seconds
        for step, read in enumerate(self.loader, first):
            batch = self.fabric.to_device(read)
            self._seed(epoch, step)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(epoch, step / steps)
            optimizer.zero_grad()
            losses: Losses = self.objective(batch)
            self.fabric.backward(losses.total)
            norm = self._clip_gradient()
            optimizer.step()
            before = watch.add(step, losses, norm, batch)
            if step > first:
                self._tell(epoch * steps + step - 1, before, advance)
            now = time.monotonic()
            if now - saved >= self.save_every and step + 1 < steps and watch.sound:
                state.step, state.sums, state.seconds = step + 1, watch.sums, now - began
                self._save(state, optimizer)
                saved = time.monotonic()
        self._tell((epoch + 1) * steps - 1, watch.judge(), advance)
        means = np.array(watch.sums) / steps
        return dict(zip(LOSS_NAMES, means.tolist(), strict=True))

    def _tell(self, step: int, loss: float, advance: Advance) -> None:
        advance(note=f"epoch {step // len(self.order) + 1}, loss {loss:.3f}")
        if self._journal is not None:
            self._journal.step(step, loss)

    def _seed(self, epoch: int, step: int) -> None:
        """Dropout draws from the global generator: what it draws depends on the step alone."""
        entropy = (self.config.seed, 3, epoch, step, self.fabric.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _clip_gradient(self) -> Tensor:
        """Scale the gradient down where it is too long; its norm before."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        if self.config.recipe.clip_norm:
            clip_grads_with_norm_(parameters, self.config.recipe.clip_norm, norm)
        return norm

    def _share_statistics(self) -> None:
        """Give batch normalisation the same statistics on all devices: their means."""
        if self.fabric.world_size == 1:
            return
        learned = {name for name, _ in self.objective.module.named_parameters()}
        for name, values in self.objective.state_dict().items():
            if name not in learned and values.is_floating_point():
                values.copy_(self.fabric.all_reduce(values.clone(), reduce_op="mean"))

    def _save(self, state: Progress, optimizer: Optimizer) -> None:
        state.objective, state.optimizer = self.objective.state_dict(), optimizer.state_dict()
        if self.fabric.is_global_zero:
            state.save(self.folder / "state.pt")
