"""Learning curves of a run: ``metrics.csv`` and, on request, TensorBoard logs."""

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
    """Check that TensorBoard is installed.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "--tensorboard requires the package tensorboard: run `pip install '.[tensorboard]'` in "
            "featreg's repository"
        ) from None


class MetricsLog:
    """Writer of the learning curves; a resumed run continues them from its saved state.

    Parameters
    ----------
    folder
        The run folder, which will contain ``metrics.csv`` and ``tensorboard/``.
    state
        The training state from which the run starts or resumes.
    steps
        Number of steps per epoch; the unit of TensorBoard's axis is one step.
    tensorboard
        Whether to write TensorBoard logs.
    """

    def __init__(self, folder: Path, state: Progress, steps: int, tensorboard: bool) -> None:
        self._csv, self._steps = folder / "metrics.csv", steps
        self._writer: SummaryWriter | None = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # Steps that were logged after the state was saved are repeated; hide the old values.
            done = state.epoch * steps + state.step
            self._writer = SummaryWriter(
                folder / "tensorboard", purge_step=done if state.begun else None
            )
        if state.history:  # the run may have stopped after its state but before this file
            self.epoch(state.history)

    def step(self, number: int, loss: float) -> None:
        """Log the loss of a step; `number` counts the steps from the start of the run."""
        if self._writer is not None:
            self._writer.add_scalar("step/loss", loss, number)

    def epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the rows of all epochs so far; the last row is new."""
        with atomic_path(self._csv) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        if self._writer is not None:
            last = dict(history[-1])
            step = int(last.pop("epoch")) * self._steps
            for name, value in last.items():
                split, _, metric = name.partition("_")
                title = f"valid/{metric}" if split == "valid" else f"train/{name}"
                self._writer.add_scalar(title, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Close the TensorBoard logs."""
        if self._writer is not None:
            self._writer.close()
