"""What an extractor is: audio in, one frame of values per hop out."""

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

from featreg.datasets.base import Clip, ClipError, FeatregError
from featreg.datasets.shards.timing import FrameTiming

Signal = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How stored integers become values: ``value = stored * scale + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def values(self, stored: Array) -> Signal:
        """The values that stored integers or floats stand for, float32."""
        values: Signal = stored.astype(np.float32, copy=False)
        if self != Quantization():
            values = values * np.float32(self.scale) + np.float32(self.offset)
        return values


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
        """Frames of shape (n, dim), from inputs of shape (n, ...); `quantize` stores them.

        The frames of a batch belong to several clips: no `ClipError` can be raised here.
        """

    def quantize(self, values: Array) -> Array:
        """Frames as they are stored: what `network` returned, as `dtype`.

        An extractor that stores integers scales and clips here, so that NaN in what `network`
        returned is still found.
        """
        return values.astype(self.dtype, copy=False)

    def extract(self, signal: Signal, clip_id: str = "") -> Array:
        """All frames of one signal, shape (frames, dim); `clip_id` is what `prepare` may need.

        Raises
        ------
        ClipError
            If the clip has no frames, or one that is not finite.
        """
        found: list[Array | ClipError] = []
        batcher = Batcher(self, lambda _, outcome: found.append(outcome))
        batcher.push(clip_id, signal)
        batcher.flush()
        (outcome,) = found
        if isinstance(outcome, ClipError):
            raise outcome
        return outcome


@dataclass(slots=True)
class _Pending:
    """A clip whose frames are being computed."""

    key: str
    frames: Array
    filled: int = 0
    bad: int | None = None  # its first frame that cannot be stored


class Batcher:
    """Lets the frames of successive clips share batches.

    Clips are pushed in order and delivered in order, each as one array of shape
    (frames, dim); memory is bounded by a batch of inputs and the frames not yet delivered.
    Nothing that is not finite is delivered: a clip with such a frame is delivered as a
    `ClipError`, and the clips that share its batches are not affected.

    Parameters
    ----------
    extractor
        Computes the frames.
    deliver
        Called with the key of a clip and its frames once they are complete, or with the
        `ClipError` that says which of them is not finite.
    watched
        Called for the context in which each call of the extractor runs: see
        `isolate_clips.time_limit`.
    """

    def __init__(
        self,
        extractor: Extractor,
        deliver: Callable[[str, Array | ClipError], None],
        watched: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._extractor = extractor
        self._deliver = deliver
        self._watched = watched
        self._inputs: list[Array] = []
        self._waiting = 0  # frames in self._inputs
        self._pending: list[_Pending] = []  # clips not yet delivered, oldest first

    def push(self, key: str, signal: Signal) -> None:
        """Add a clip; deliver every clip that its frames complete.

        Raises
        ------
        ClipError
            If this clip has no frames, or the network's input for one is not finite; the
            batcher goes on without it.
        """
        extractor = self._extractor
        with self._watched():
            signal = extractor.prepare(key, signal)
        total = extractor.frames(len(signal))
        if total < 1:
            raise ClipError("extract", f"{extractor.name}: expected a frame or more, found {total}")
        self._pending.append(_Pending(key, np.empty((total, extractor.dim), extractor.dtype)))
        start = 0
        while start < total:
            stop = min(total, start + extractor.batch_frames - self._waiting)
            try:
                with self._watched():
                    inputs = extractor.inputs(signal, start, stop)
                # A maximum or a ReLU in the network could turn NaN into a plausible number.
                if not (finite := _finite(inputs)).all():
                    raise self._not_finite(start + int(np.argmin(finite)))
            except ClipError:
                # Its frames before `start` filled a batch each, so that none of them waits;
                # and where there are any, all older clips are delivered.
                self._pending.pop()
                raise
            self._inputs.append(inputs)
            self._waiting += stop - start
            start = stop
            if self._waiting == extractor.batch_frames:
                self.flush()

    def flush(self) -> None:
        """Run the frames that wait for a full batch, and deliver their clips."""
        if not self._waiting:
            return
        extractor, shape = self._extractor, (self._waiting, self._extractor.dim)
        batch = self._inputs[0] if len(self._inputs) == 1 else np.concatenate(self._inputs)
        self._inputs, self._waiting = [], 0
        extractor.load()
        try:
            with self._watched():
                values = np.asarray(extractor.network(batch))
        except ClipError as error:
            raise RuntimeError(
                f"{extractor.name}: `network` raised a ClipError, but a batch holds frames of "
                f"several clips; `prepare` and `inputs` may raise it ({error})"
            ) from error
        if values.shape != shape:
            raise FeatregError(
                f"{extractor.name}: expected an array of shape {shape} from `network`, one line "
                f"for each frame that `frames` counted, found {values.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            stored = extractor.quantize(values)
        finite = _finite(values)
        if stored.dtype != values.dtype:
            finite &= _finite(stored)
        done = 0
        while done < len(values):
            clip = self._pending[0]
            stop = min(len(values), done + len(clip.frames) - clip.filled)
            clip.frames[clip.filled : clip.filled + stop - done] = stored[done:stop]
            if clip.bad is None and not finite[done:stop].all():
                clip.bad = clip.filled + int(np.argmin(finite[done:stop]))
            clip.filled += stop - done
            done = stop
            if clip.filled == len(clip.frames):
                self._pending.pop(0)
                failed = None if clip.bad is None else self._not_finite(clip.bad)
                self._deliver(clip.key, failed or clip.frames)

    def _not_finite(self, frame: int) -> ClipError:
        timing, dtype = self._extractor.timing, np.dtype(self._extractor.dtype)
        center_s = timing.first_center_s + frame * timing.hop_s
        return ClipError(
            "extract",
            f"{self._extractor.name}: frame {frame} (at {center_s:.3f} s) holds a value that is "
            f"not finite{f' as {dtype}' if dtype.kind == 'f' else ''}",
        )


def _finite(values: Array) -> npt.NDArray[np.bool_]:
    """Which frames of an array of shape (frames, ...) are finite; shape (frames,)."""
    everything = np.ones(len(values), np.bool_)
    if values.dtype.kind not in "fc" or np.isfinite(values).all():
        return everything
    return np.isfinite(values).reshape(len(values), -1).all(axis=1, out=everything)
