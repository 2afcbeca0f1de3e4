"""A feature whose network asks for more memory than any machine has, at a certain clip."""

from __future__ import annotations

import numpy as np
from loudness import Loudness, LoudnessConfig

from featreg.extract.stream import Array

# Mean square of a clip of 0.25 throughout: no tone of the kit has it.
LARGE = 0.0625


class Hungry(Loudness):
    name = "hungry"
    Config = LoudnessConfig

    def network(self, inputs: Array) -> Array:
        rows = super().network(inputs)
        if np.isclose(rows[:, 0], LARGE, atol=1e-4).any():
            np.empty(1 << 57, np.uint8)
        return rows
