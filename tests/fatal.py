"""Features whose network cannot bear a certain clip: one far louder than the kit's tones."""

from __future__ import annotations

import os
import signal
import time
from abc import abstractmethod
from pathlib import Path

import numpy as np
from loudness import Loudness, LoudnessConfig

from featreg.extract.extractors.base import Array

# Mean square of half a second. A full-scale square wave has 1; no tone of the kit is so loud.
UNBEARABLE = 0.9


class Fatal(Loudness):
    Config = LoudnessConfig

    def network(self, inputs: Array) -> Array:
        rows = super().network(inputs)
        if (rows[:, 0] > UNBEARABLE).any():
            self.suffer()
        return rows

    @abstractmethod
    def suffer(self) -> None: ...


class Deadly(Fatal):
    name = "deadly"

    def suffer(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out


class Hungry(Fatal):
    name = "hungry"

    def suffer(self) -> None:
        np.empty(1 << 57, np.uint8)


class Needy(Loudness):
    """Cannot do anything without a file that is named by the environment."""

    name = "needy"
    Config = LoudnessConfig

    def network(self, inputs: Array) -> Array:
        Path(os.environ["FEATREG_TEST_NEED"]).read_bytes()
        return super().network(inputs)


class Hanging(Fatal):
    name = "hanging"

    def suffer(self) -> None:
        time.sleep(3600)
