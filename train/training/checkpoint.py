"""The training state of a run between two steps, from which the run resumes exactly."""

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
"""Start of the first line of the file, followed there by the SHA-256 of the other lines."""


@dataclass
class Progress:
    """The training state.

    The order of the clips, the crops and dropout are functions of (seed, epoch, step) and
    are therefore not stored.

    Attributes
    ----------
    epoch
        Number of finished epochs.
    step
        Number of finished steps of the current epoch.
    sums, seconds
        Sum of each loss over these steps, and their duration in seconds.
    objective
        Parameters and buffers of the model and its regularizer.
    optimizer
        State of the current stage's optimizer.
    best_epoch, best_value, best
        The epoch with the best validation metric, counted from 1 (0 before the first), the
        metric, and `objective` after that epoch.
    history
        Rows of ``metrics.csv``, one per finished epoch.
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
        """Return whether at least one step is finished."""
        return self.epoch > 0 or self.step > 0

    def save(self, path: Path) -> None:
        """Write the state to a file, atomically."""
        state = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(_first_line(buffer.getbuffer()))
            file.write(buffer.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read the state that `save` wrote; return an initial state if there is no file.

        Raises
        ------
        FeatregError
            If the file is damaged, or was written by another version.
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
