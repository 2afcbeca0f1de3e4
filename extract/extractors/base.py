"""Base class of the extractors, which compute the frames of a feature from audio."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    """Linear quantization: ``value = stored * scale + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def values(self, stored: Array) -> Signal:
        """Values of stored integers or floats, float32, of the same shape."""
        values: Signal = stored.astype(np.float32, copy=False)
        if self != Quantization():
            values = values * np.float32(self.scale) + np.float32(self.offset)
        return values


def files_sha256(files: Sequence[str | Path]) -> str:
    """Hash of a file, or of the files' hashes if there are several; empty if there are none."""
    hashes = [pooch.file_hash(str(file), alg="sha256") for file in files]
    if len(hashes) < 2:
        return "".join(hashes)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


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
    scheme, source
        The scheme in a request ``NAME=SCHEME:SOURCE``, and the text after it; empty for other
        features.
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
    scheme: ClassVar[str] = ""
    source: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    Config: ClassVar[type]

    sample_rate: int
    dim: int
    dtype: npt.DTypeLike = np.float32
    quantization: Quantization = Quantization()
    timing: FrameTiming
    batch_frames: int
    learnt: tuple[tuple[str, Any], ...] = ()
    _loaded = False

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
    def resolve(cls, source: str) -> str:
        """`source` of a request as every process finds it, such as an absolute path.

        Raises
        ------
        UsageError
            If there is no such file, module or model.
        """
        return source

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
    def request(self) -> str:
        """``NAME=SCHEME:SOURCE`` or ``MODULE:CLASS``; empty for the features of featreg."""
        if self.scheme:
            return f"{self.name}={self.scheme}:{self.source}"
        module, cls = type(self).__module__, type(self).__qualname__
        return "" if module.startswith("featreg.") else f"{module}:{cls}"

    @property
    def missing_weights(self) -> tuple[str, ...]:
        """Names of missing weights, without which frames can be described but not computed."""
        return tuple(name for name in self.weight_names(self.config) if name not in self.weights)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights file, or of the files' hashes if there are several."""
        return files_sha256([self.weights[name] for name in self.weight_names(self.config)])

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

    def learn(self) -> dict[str, Any]:
        """Attributes that only the network can tell, such as `dim`, by name.

        Called once per run, when it is planned; the extractors of the workers receive the values,
        which must be hashable. Called for features that are not featreg's own.
        """
        return {}

    def load(self) -> None:  # noqa: B027  # most have nothing to load
        """Load the network into memory. Called by `load_once`."""

    def load_once(self) -> None:
        """Call `load`, unless it was called before.

        Called before each batch, without the time limit of a call of `network`.
        """
        if not self._loaded:
            self.load()
            self._loaded = True

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
        from .batching import Batcher

        found: list[Array | ClipError] = []
        batcher = Batcher(self, lambda _, outcome: found.append(outcome))
        batcher.push(clip_id, signal)
        batcher.flush()
        (outcome,) = found
        if isinstance(outcome, ClipError):
            raise outcome
        return outcome
