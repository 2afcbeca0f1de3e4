"""When the rows of a stream happen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """Row i of a stream is centred at ``first_center_s + i * hop_s``.

    Attributes
    ----------
    hop_s
        Seconds between rows, above 0.
    window_s
        Seconds of audio that one row sees, above 0.
    first_center_s
        Centre of row 0, in seconds from the clip's start.

    Raises
    ------
    ValueError
        If hop or window is not positive and finite, or the first centre not finite.
    """

    hop_s: float
    window_s: float
    first_center_s: float

    def __post_init__(self) -> None:
        for name in ("hop_s", "window_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0 s, got {value}")
        if not math.isfinite(self.first_center_s):
            raise ValueError(f"first_center_s must be finite, got {self.first_center_s}")

    def centers(self, rows: int) -> npt.NDArray[np.float64]:
        """Centres of the first `rows` rows, in seconds; shape (rows,)."""
        return self.first_center_s + self.hop_s * np.arange(rows, dtype=np.float64)
