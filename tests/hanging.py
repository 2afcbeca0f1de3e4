"""A feature whose network never comes back from a certain clip."""

from __future__ import annotations

import time

from loudness import Loudness, LoudnessConfig

from featreg.extract.stream import Array

# Half a second of a full-scale square wave: no tone of the kit is that loud.
ENDLESS = 0.9


class Hanging(Loudness):
    name = "hanging"
    Config = LoudnessConfig

    def network(self, inputs: Array) -> Array:
        rows = super().network(inputs)
        if (rows[:, 0] > ENDLESS).any():
            time.sleep(3600)
        return rows
