"""What an extractor is: audio in, one row of values per hop out."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pooch

from featreg.datasets.base import Clip, ClipError
from featreg.datasets.shards.timing import FrameTiming

Signal = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How stored integers become values: ``value = stored * scale + offset``."""

    scale: float = 1.0
    offset: float = 0.0


class Extractor(ABC):
    """A mono signal in, an array of shape (rows, dim) out.

    Building one is cheap; the network is loaded when the first row is asked for, so
    that a plan can be made without it.

    Parameters
    ----------
    config
        An instance of `Config`, a frozen dataclass: every choice of the user that
        changes a number.
    weights
        For each name in ``weight_names(config)``, the safetensors file that holds it.
    device
        Where the network runs: ``cpu``, ``cuda``, ``cuda:1``.
    precision
        ``float32``, or ``bfloat16`` for the network's products (sums stay float32).

    Attributes
    ----------
    name
        The feature's name on the command line and on disk.
    revision
        Raised whenever a release changes the numbers; stored with the settings, so
        that older shards are redone.
    sample_rate
        Rate of the signal that `inputs` takes, in Hz.
    dim
        Values a row.
    dtype
        What is stored: float32, float16, uint8 or int16.
    quantization
        How stored integers become values again.
    timing
        When the rows happen.
    batch_frames
        Rows that go through the network at once.
    """

    name: ClassVar[str]
    revision: ClassVar[int] = 1
    Config: ClassVar[type]

    sample_rate: int
    dim: int
    dtype: npt.DTypeLike = np.float32
    quantization: Quantization = Quantization()
    timing: FrameTiming
    batch_frames: int

    def __init__(
        self,
        config: Any,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.config = config
        self.weights = dict(weights)
        self.device = device
        self.precision = precision

    @classmethod
    def weight_names(cls, config: Any) -> tuple[str, ...]:
        """Names of the weights that `config` asks for (see ``weights.py``)."""
        return ()

    @classmethod
    def trained_on(cls, config: Any) -> str | None:
        """Name of the dataset that the weights have seen, where it is one of featreg's."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """Every choice that changes a number, as JSON values."""
        settings = {**dataclasses.asdict(self.config), "revision": self.revision}
        if self.weight_names(self.config):
            settings["precision"] = self.precision
        return settings

    @property
    def missing_weights(self) -> tuple[str, ...]:
        """Names of the weights that it lacks: it says what its rows are, and can give none."""
        return tuple(name for name in self.weight_names(self.config) if name not in self.weights)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights: of the file, or of the files' hashes where there are several."""
        hashes = [
            pooch.file_hash(str(self.weights[name]), alg="sha256")
            for name in self.weight_names(self.config)
        ]
        if len(hashes) < 2:
            return "".join(hashes)
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def fingerprint(self, clip: Clip, audio: str) -> str:
        """What the clip's rows are made from: its audio, of which `audio` is a fingerprint."""
        return audio

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """What `rows` and `inputs` take for a clip: its signal, unless a subclass says other.

        Raises
        ------
        ClipError
            If this clip can have no rows; the others go on.
        """
        return signal

    def load(self) -> None:  # noqa: B027  # most have nothing to load
        """Bring what `network` needs into memory, if it is not there yet.

        Called before each batch, and not timed as one: a call of `network` has a limit.
        """

    @abstractmethod
    def frames(self, samples: int) -> int:
        """Rows that a signal of `samples` samples gives; at least 1 for `samples` >= 1."""

    @abstractmethod
    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """What the network sees for the rows from `start` to `stop`.

        Parameters
        ----------
        signal
            Shape (samples,), float32 in [-1, 1], at `sample_rate`.
        start, stop
            Rows, 0 <= start < stop <= ``rows(len(signal))``.

        Returns
        -------
        Shape (stop - start, ...), the first axis over rows.

        Raises
        ------
        ClipError
            If this clip can have no rows; the others go on.
        """

    @abstractmethod
    def network(self, inputs: Array) -> Array:
        """Rows of shape (n, dim) and type `dtype`, from inputs of shape (n, ...).

        The rows of a batch belong to several clips: no `ClipError` can be raised here.
        """

    def extract(self, signal: Signal, clip_id: str = "") -> Array:
        """All rows of one signal, shape (rows, dim); `clip_id` is what `prepare` may need.

        Raises
        ------
        ClipError
            If the clip can have no rows.
        """
        rows: list[Array] = []
        batcher = Batcher(self, lambda _, values: rows.append(values))
        batcher.push(clip_id, signal)
        batcher.flush()
        return rows[0]


class Batcher:
    """Lets the rows of successive clips share batches.

    Clips are pushed in order and delivered in order, each as one array of shape
    (rows, dim); memory is bounded by a batch of inputs and the rows not yet delivered.

    Parameters
    ----------
    extractor
        Computes the rows.
    deliver
        Called with the key of a clip and its rows once they are complete.
    watched
        Called for the context in which each call of the extractor runs: see
        `isolate_clips.time_limit`.
    """

    def __init__(
        self,
        extractor: Extractor,
        deliver: Callable[[str, Array], None],
        watched: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._extractor = extractor
        self._deliver = deliver
        self._watched = watched
        self._inputs: list[Array] = []
        self._waiting = 0  # rows in self._inputs
        self._open: list[tuple[str, Array]] = []  # clips not yet delivered, oldest first
        self._filled = 0  # rows of the oldest open clip that are computed

    def push(self, key: str, signal: Signal) -> None:
        """Add a clip; deliver every clip that its rows complete.

        Raises
        ------
        ClipError
            If this clip can have no rows; the batcher goes on without it.
        """
        with self._watched():
            signal = self._extractor.prepare(key, signal)
        total = self._extractor.frames(len(signal))
        self._open.append((key, np.empty((total, self._extractor.dim), self._extractor.dtype)))
        start = 0
        while start < total:
            stop = min(total, start + self._extractor.batch_frames - self._waiting)
            try:
                with self._watched():
                    self._inputs.append(self._extractor.inputs(signal, start, stop))
            except ClipError:
                # Its rows before `start` filled a batch each, so that none of them waits; and
                # where there are any, all older clips are delivered.
                self._open.pop()
                self._filled = self._filled if self._open else 0
                raise
            self._waiting += stop - start
            start = stop
            if self._waiting == self._extractor.batch_frames:
                self.flush()

    def flush(self) -> None:
        """Run the rows that wait for a full batch, and deliver their clips."""
        if not self._waiting:
            return
        batch = self._inputs[0] if len(self._inputs) == 1 else np.concatenate(self._inputs)
        self._inputs, self._waiting = [], 0
        self._extractor.load()
        try:
            with self._watched():
                values = self._extractor.network(batch)
        except ClipError as error:
            raise RuntimeError(
                f"{self._extractor.name}: `network` raised a ClipError, but a batch holds rows of "
                f"several clips; `prepare` and `inputs` may raise it ({error})"
            ) from error
        while len(values):
            key, rows = self._open[0]
            taken = min(len(values), len(rows) - self._filled)
            rows[self._filled : self._filled + taken] = values[:taken]
            self._filled += taken
            values = values[taken:]
            if self._filled == len(rows):
                self._open.pop(0)
                self._filled = 0
                self._deliver(key, rows)
