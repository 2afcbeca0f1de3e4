"""The curves of a run: ``metrics.csv``, and TensorBoard where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from featreg.datasets.base import UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from .checkpoint import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def require_tensorboard() -> None:
    """Import what writes TensorBoard's files.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install '.[tensorboard]' in "
            "featreg's repository"
        ) from None


class Journal:
    """Writes curves; a run that goes on writes on where its state was saved.

    Parameters
    ----------
    folder
        The run's: ``metrics.csv`` and ``tensorboard/`` lie there.
    state
        What the run goes on from.
    steps
        Steps of an epoch: TensorBoard's axis counts steps.
    tensorboard
        Whether to write for it.
    """

    def __init__(self, folder: Path, state: Progress, steps: int, tensorboard: bool) -> None:
        self._csv, self._steps = folder / "metrics.csv", steps
        self._writer: SummaryWriter | None = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # What was logged after the state was saved happens again, and is hidden.
            done = state.epoch * steps + state.step
            self._writer = SummaryWriter(
                folder / "tensorboard", purge_step=done if state.begun else None
            )
        if state.history:  # the run may have ended between its state and this file
            self.epoch(state.history)

    def step(self, number: int, loss: float) -> None:
        """The loss of one step, counted from the run's beginning."""
        if self._writer is not None:
            self._writer.add_scalar("step/loss", loss, number)

    def epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """All rows so far; the last one is new."""
        with atomic_path(self._csv) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        if self._writer is not None:
            last = dict(history[-1])
            at = int(last.pop("epoch")) * self._steps
            for name, value in last.items():
                split, _, metric = name.partition("_")
                title = f"valid/{metric}" if split == "valid" else f"train/{name}"
                self._writer.add_scalar(title, value, at)
            self._writer.flush()

    def close(self) -> None:
        """Write out what is left."""
        if self._writer is not None:
            self._writer.close()
