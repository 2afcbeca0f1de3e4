"""A feature whose network takes its process down when it hears a certain clip."""

from __future__ import annotations

import os
import signal

from loudness import Loudness, LoudnessConfig

from featreg.extract.stream import Array

# Half a second of a full-scale square wave: no tone of the kit is that loud.
FATAL = 0.9


class Deadly(Loudness):
    name = "deadly"
    Config = LoudnessConfig

    def network(self, inputs: Array) -> Array:
        rows = super().network(inputs)
        if (rows[:, 0] > FATAL).any():
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        return rows
