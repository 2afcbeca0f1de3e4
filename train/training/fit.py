"""The training loop: epochs of random crops, validation, best epoch and resuming."""

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

from ..config.config import Config
from ..config.schedule import Schedule, alpha_scale
from ..data.crops import EpochOrder
from ..evaluation.metrics import improves
from .checkpoint import Progress
from .loss_monitor import LossMonitor
from .metrics_log import MetricsLog
from .objective import Losses
from .run_files import damaged
from .time_left import TimeLeft

LOSS_NAMES = ("loss", "task_loss", "reg_loss")


@dataclass
class Fit:
    """Training of an objective for the epochs of its schedule.

    Attributes
    ----------
    fabric
        Devices and precision.
    config
        The configuration of the run.
    objective
        An `objective.Objective` or a `pretraining.Pretraining`, set up by `fabric`.
    loader, order
        Loader of batches of crops on the CPU, and the order from which it reads.
    validate
        Function that returns the metrics of the validation split by name.
    clip_ids
        Ids of the training clips, for messages.
    folder
        Folder for ``state.pt`` and the learning curves.
    save_every
        Minimum interval between two checkpoints within an epoch, in seconds.
    tensorboard
        Whether to write TensorBoard logs.
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
    _log: MetricsLog | None = field(default=None, init=False)
    _time_left: TimeLeft = field(init=False)

    def run(self) -> Progress:
        """Train to the end of the schedule, resuming from the saved state if there is one.

        Returns
        -------
        The final training state. The objective has the weights of the best epoch.

        Raises
        ------
        FeatregError
            If a loss is not finite (the message names the clips of the batch), or the saved
            state is damaged or does not match the model.
        """
        recipe, steps = self.config.recipe, len(self.order)
        schedule = Schedule(recipe.schedule, recipe.epochs, recipe.lr)
        state = Progress.load(self.folder / "state.pt")
        if self.fabric.is_global_zero:
            self._log = MetricsLog(self.folder, state, steps, self.tensorboard)
        optimizer: Any = None
        if state.begun:
            say(f"resuming after epoch {state.epoch}, step {state.step} of {steps}")
            last = state.epoch if state.step else state.epoch - 1
            optimizer = self._optimizer(schedule, schedule.stage(last))
            try:
                self.objective.load_state_dict(state.objective)
                optimizer.load_state_dict(state.optimizer)
            except (KeyError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise damaged(
                    self.folder / "state.pt", f"does not match the model ({reason})"
                ) from None
        self._time_left = TimeLeft(recipe.epochs * steps)
        with progress("training", recipe.epochs * steps) as advance:
            advance(state.epoch * steps + state.step)
            while state.epoch < recipe.epochs and not self._out_of_patience(state):
                if self._stage_begins(schedule, state):
                    if state.best:
                        self.objective.load_state_dict(state.best)
                    optimizer = self._optimizer(schedule, schedule.stage(state.epoch))
                self._epoch(state, schedule, optimizer, advance)
        if self._log is not None:
            self._log.close()
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
        if not state.best or improves(name, metrics[name], state.best_value):
            state.best_value, state.best_epoch = metrics[name], state.epoch
            state.best = {key: x.clone() for key, x in self.objective.state_dict().items()}
        self._save(state, optimizer)
        if self._log is not None:
            self._log.epoch(state.history)
        self.fabric.barrier()

    def _train(
        self, state: Progress, schedule: Schedule, optimizer: Optimizer, advance: Advance
    ) -> dict[str, float]:
        """Train for the remaining steps of an epoch; return the mean of each loss."""
        epoch, first, steps = state.epoch, state.step, len(self.order)
        where = f"{self.folder.name}, epoch {epoch + 1}"
        monitor = LossMonitor(self.fabric, self.clip_ids, where, state.sums)
        self.order.epoch, self.order.done = epoch, first
        self.objective.train()
        saved = time.monotonic()
        began = saved - state.seconds
        for step, loaded in enumerate(self.loader, first):
            batch = self.fabric.to_device(loaded)
            self._seed(epoch, step)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(epoch, step / steps)
            optimizer.zero_grad()
            done = (epoch + step / steps) / self.config.recipe.epochs
            scale = alpha_scale(self.config.alpha_schedule, done)
            losses: Losses = self.objective(batch, scale)
            self.fabric.backward(losses.total)
            norm = self._clip_gradient()
            optimizer.step()
            previous = monitor.add(step, losses, norm, batch)
            self._time_left.step(epoch * steps + step + 1)
            if step > first:
                self._report(epoch * steps + step - 1, previous, advance)
            now = time.monotonic()
            if now - saved >= self.save_every and step + 1 < steps and monitor.finite:
                state.step, state.sums, state.seconds = step + 1, monitor.sums, now - began
                self._save(state, optimizer)
                saved = time.monotonic()
        self._report((epoch + 1) * steps - 1, monitor.check(), advance)
        means = np.array(monitor.sums) / steps
        return dict(zip(LOSS_NAMES, means.tolist(), strict=True))

    def _report(self, step: int, loss: float, advance: Advance) -> None:
        advance(note=f"epoch {step // len(self.order) + 1}, loss {loss:.3f}")
        if self._log is not None:
            self._log.step(step, loss)

    def _seed(self, epoch: int, step: int) -> None:
        """Seed the global generator, from which dropout draws, by epoch, step and device."""
        entropy = (self.config.seed, 3, epoch, step, self.fabric.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _clip_gradient(self) -> Tensor:
        """Clip the norm of the gradient; return the norm before clipping."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        if self.config.recipe.clip_norm:
            clip_grads_with_norm_(parameters, self.config.recipe.clip_norm, norm)
        return norm

    def _share_statistics(self) -> None:
        """Average the statistics of batch normalization over all devices."""
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
