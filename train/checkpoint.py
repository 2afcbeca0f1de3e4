"""The state of a run between two epochs, from which it goes on as if never stopped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featreg.datasets.base import FeatregError
from featreg.datasets.shards import atomic_path


@dataclass
class Progress:
    """All that training changes. Random draws are functions of (seed, epoch) and need no state.

    Attributes
    ----------
    epoch
        Epochs finished: the number of the last one.
    objective
        Parameters and buffers of the model and its regularizer.
    optimizer
        State of the current stage's optimizer.
    best_epoch, best_value, best
        The epoch with the best validation metric (0 before the first), its value and
        its `objective`.
    history
        For every finished epoch, its row of ``metrics.csv``.
    """

    epoch: int = 0
    objective: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    best_value: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it all, atomically."""
        state = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    @classmethod
    def load(cls, path: Path) -> Progress:
        """What `save` wrote; a new start if there is no file.

        Raises
        ------
        FeatregError
            If the file is no state of this version.
        """
        if not path.is_file():
            return cls()
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            raise FeatregError(
                f"{path}: cannot be resumed ({type(error).__name__}); start again with --fresh"
            ) from error
