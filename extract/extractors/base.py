"""Base class of the extractors, which compute the frames of a feature from audio."""

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
    """Linear quantization: ``value = stored * scale + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def values(self, stored: Array) -> Signal:
        """Values of stored integers or floats, float32, of the same shape."""
        values: Signal = stored.astype(np.float32, copy=False)
        if self != Quantization():
            values = values * np.float32(self.scale) + np.float32(self.offset)
        return values


class Extractor(ABC):
    """Computes frames of shape (frames, dim) from a mono signal.

    Creating an extractor is cheap: the network is loaded only when the first frame is computed,
    so that planning does not need it.

    Parameters
    ----------
    config
        Instance of `Config`, a frozen dataclass with all settings that affect the values.
    weights
        Safetensors file for each name in ``weight_names(config)``.
    device
        Device of the network: ``cpu``, ``cuda``, ``cuda:1``.
    precision
        ``float32``, or ``bfloat16`` for the network's matrix products (with float32 sums).

    Attributes
    ----------
    name
        Name of the feature on the command line and on disk.
    revision
        Incremented when a release changes the values; stored with the settings, so that older
        shards are recomputed.
    sample_rate
        Sample rate of the signal that `inputs` expects, in Hz.
    dim
        Number of dimensions of a frame.
    dtype
        Type of the stored values: float32, float16, uint8 or int16.
    quantization
        Conversion of stored integers to values.
    timing
        Time grid of the frames.
    batch_frames
        Number of frames that the network processes at once.
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
        """Names of the weights that `config` requires (see ``weights/registry.py``)."""
        return ()

    @classmethod
    def trained_on(cls, config: Any) -> str | None:
        """Name of the dataset on which the weights were trained, if featreg supports it."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that affect the values, as JSON values."""
        settings = {**dataclasses.asdict(self.config), "revision": self.revision}
        if self.weight_names(self.config):
            settings["precision"] = self.precision
        return settings

    @property
    def missing_weights(self) -> tuple[str, ...]:
        """Names of missing weights, without which frames can be described but not computed."""
        return tuple(name for name in self.weight_names(self.config) if name not in self.weights)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights file, or of the files' hashes if there are several."""
        hashes = [
            pooch.file_hash(str(self.weights[name]), alg="sha256")
            for name in self.weight_names(self.config)
        ]
        if len(hashes) < 2:
            return "".join(hashes)
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def fingerprint(self, clip: Clip, audio: str) -> str:
        """Fingerprint of the inputs of a clip's frames; `audio` is that of its audio."""
        return audio

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """Input of `frames` and `inputs` for a clip: by default, its signal.

        Raises
        ------
        ClipError
            If no frames can be computed for this clip; the other clips are not affected.
        """
        return signal

    def load(self) -> None:  # noqa: B027  # most have nothing to load
        """Load the network into memory, unless it is loaded already.

        Called before each batch, without the time limit of a call of `network`.
        """

    @abstractmethod
    def frames(self, samples: int) -> int:
        """Number of frames of a signal of `samples` samples; at least 1 for `samples` >= 1."""

    @abstractmethod
    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Inputs of the network for frames `start` to `stop` - 1.

        Parameters
        ----------
        signal
            Signal of shape (samples,), float32 in [-1, 1], at `sample_rate`.
        start, stop
            Range of frames, 0 <= start < stop <= ``frames(len(signal))``.

        Returns
        -------
        Array of shape (stop - start, ...), the first axis over frames.

        Raises
        ------
        ClipError
            If no frames can be computed for this clip; the other clips are not affected.
        """

    @abstractmethod
    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, dim), before `quantize`, from inputs of shape (n, ...).

        The frames of a batch may belong to several clips: `ClipError` must not be raised here.
        """

    def quantize(self, values: Array) -> Array:
        """Convert frames returned by `network` to the stored type `dtype`.

        An extractor that stores integers scales and clips here, not in `network`, so that NaN in
        the output of `network` is detected.
        """
        return values.astype(self.dtype, copy=False)

    def extract(self, signal: Signal, clip_id: str = "") -> Array:
        """All frames of one signal, shape (frames, dim); `clip_id` is passed to `prepare`.

        Raises
        ------
        ClipError
            If the clip has no frames, or a frame that is not finite.
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
    bad: int | None = None  # index of the first frame that is not finite


class Batcher:
    """Computes the frames of successive clips in common batches.

    Clips are delivered in the order in which they are pushed, each as one array of shape
    (frames, dim); memory is bounded by a batch of inputs and the frames not yet delivered.
    A clip with a frame that is not finite is delivered as a `ClipError`; the other clips of its
    batches are not affected.

    Parameters
    ----------
    extractor
        Extractor that computes the frames.
    deliver
        Function called with the key of a clip and its complete frames, or with a `ClipError` that
        states which frame is not finite.
    watched
        Function that returns the context manager for a call of the extractor, such as
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
        self._pending_frames = 0  # number of frames in self._inputs
        self._pending: list[_Pending] = []  # clips not yet delivered, oldest first

    def push(self, key: str, signal: Signal) -> None:
        """Add a clip, and deliver the clips that are complete.

        Raises
        ------
        ClipError
            If this clip has no frames, or an input of the network is not finite; the batcher
            remains usable.
        """
        extractor = self._extractor
        with self._watched():
            signal = extractor.prepare(key, signal)
        total = extractor.frames(len(signal))
        if total < 1:
            reason = f"{extractor.name}: expected at least 1 frame, found {total}"
            raise ClipError("extract", reason)
        self._pending.append(_Pending(key, np.empty((total, extractor.dim), extractor.dtype)))
        start = 0
        while start < total:
            stop = min(total, start + extractor.batch_frames - self._pending_frames)
            try:
                with self._watched():
                    inputs = extractor.inputs(signal, start, stop)
                # A maximum or a ReLU in the network could turn NaN into a plausible number.
                if not (finite := _finite(inputs)).all():
                    raise self._not_finite(start + int(np.argmin(finite)))
            except ClipError:
                # The frames before `start` filled whole batches, so that none is pending; if there
                # are any, all older clips have been delivered.
                self._pending.pop()
                raise
            self._inputs.append(inputs)
            self._pending_frames += stop - start
            start = stop
            if self._pending_frames == extractor.batch_frames:
                self.flush()

    def flush(self) -> None:
        """Compute the pending frames without waiting for a full batch, and deliver their clips."""
        if not self._pending_frames:
            return
        extractor, shape = self._extractor, (self._pending_frames, self._extractor.dim)
        batch = self._inputs[0] if len(self._inputs) == 1 else np.concatenate(self._inputs)
        self._inputs, self._pending_frames = [], 0
        extractor.load()
        try:
            with self._watched():
                values = np.asarray(extractor.network(batch))
        except ClipError as error:
            raise RuntimeError(
                f"{extractor.name}: `network` raised a ClipError, but a batch has frames of "
                f"several clips; raise it in `prepare` or `inputs` ({error})"
            ) from error
        if values.shape != shape:
            raise FeatregError(
                f"{extractor.name}: expected an array of shape {shape} from `network`, one row "
                f"per frame, found {values.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # detected below
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
            f"{self._extractor.name}: frame {frame} (at {center_s:.3f} s) has a value that is "
            f"not finite{f' as {dtype}' if dtype.kind == 'f' else ''}",
        )


def _finite(values: Array) -> npt.NDArray[np.bool_]:
    """Whether each frame of an array of shape (frames, ...) is finite; shape (frames,)."""
    finite = np.ones(len(values), np.bool_)
    if values.dtype.kind not in "fc" or np.isfinite(values).all():
        return finite
    return np.isfinite(values).reshape(len(values), -1).all(axis=1, out=finite)
