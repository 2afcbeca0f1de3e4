"""The state of a run between two steps, from which it goes on as if never stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featreg.datasets.shards.hdf5 import atomic_path

from .run_files import damaged, read_bytes

FORMAT = "featreg-state 3"
"""First words of the file; the SHA-256 of what follows the first line stands behind them."""


@dataclass
class Progress:
    """All that training changes.

    The order of the clips, the crops and dropout are functions of (seed, epoch, step) and
    need no state.

    Attributes
    ----------
    epoch
        Epochs finished: the number of the last one.
    step
        Steps done of the epoch after it.
    sums, seconds
        Over these steps: the sum of each loss, and the time they took.
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
    step: int = 0
    sums: list[float] = field(default_factory=list)
    seconds: float = 0.0
    objective: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    best_value: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether a step was taken."""
        return self.epoch > 0 or self.step > 0

    def save(self, path: Path) -> None:
        """Write it all, atomically."""
        state = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(_first_line(buffer.getbuffer()))
            file.write(buffer.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Progress:
        """What `save` wrote; a new start if there is no file.

        Raises
        ------
        FeatregError
            If the file is damaged, or of another version.
        """
        if not path.is_file():
            return cls()
        first, _, payload = read_bytes(path).partition(b"\n")
        if not first.startswith(FORMAT.encode()):
            raise damaged(path, f"cannot be resumed, since it does not begin with {FORMAT!r}")
        if first + b"\n" != _first_line(payload):
            raise damaged(path, "cannot be resumed, since its checksum is wrong")
        try:
            return cls(**torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises many kinds
            raise damaged(path, f"cannot be resumed ({type(error).__name__})") from error


def _first_line(payload: bytes | memoryview) -> bytes:
    return f"{FORMAT} {hashlib.sha256(payload).hexdigest()}\n".encode()
