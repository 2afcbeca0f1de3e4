"""Time grid of the frames of a feature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """Time grid of a feature: frame i is centered at ``first_center_s + i * hop_s``.

    Attributes
    ----------
    hop_s
        Seconds between the centers of consecutive frames, above 0.
    window_s
        Seconds of audio from which a frame is computed, above 0.
    first_center_s
        Center of frame 0, in seconds from the start of the clip.

    Raises
    ------
    ValueError
        If hop or window is not positive and finite, or the first center is not finite.
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

    def centers(self, frames: int) -> npt.NDArray[np.float64]:
        """Centers of the first `frames` frames, in seconds; shape (frames,)."""
        return self.first_center_s + self.hop_s * np.arange(frames, dtype=np.float64)
