"""Base class of features whose network maps windows of fixed length to embeddings.

::

    import torch

    from featreg.extract.extractors.windowed import Windowed


    class Birds(Windowed):
        name = "birds"
        sample_rate = 32000
        window_s = 5.0
        hop_s = 2.5
        files = ("birds.ts",)

        def load(self):
            self.model = torch.jit.load("birds.ts", map_location=self.device)

        def embed(self, windows):
            return self.model(torch.from_numpy(windows).to(self.device))
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from featreg.datasets.base import ClipError, FeatregError, UsageError
from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Extractor, Signal, files_sha256
from .custom import NoSettings, code_sha256


@dataclass(eq=False, slots=True)
class _Window:
    """A window of a clip: its samples, at most one window long, and then its frames."""

    samples: Signal
    frames: Array | None = None


class Windowed(Extractor):
    """Frames computed from windows of fixed length, in batches across clips.

    Windows start every `hop_s` seconds, the first one at the start of the clip. The last one is
    the first that reaches the end of the clip; it is padded with zeros, as is a clip that is
    shorter than a window. A clip of n samples has ``W = 1 + ceil(max(0, n - L) / H)`` windows of
    L samples, H samples apart.

    If the network returns one vector per window, frame i is window i, centered at
    ``i hop_s + window_s / 2``.

    If it returns F frames per window, `frame_s` apart, `hop_s` must be a multiple ``k frame_s``
    with k <= F. Frame i is centered at ``first_center_s + i frame_s``, and there are
    ``min(ceil(n / frame_s), F + k (W - 1))`` of them (n in seconds), at least 1. Where windows
    overlap, each contributes its middle frames: with ``c = (F - k) // 2``, frame i is frame
    ``i - k w`` of window ``w = min(max(0, (i - c) // k), W - 1)``.

    A subclass defines `name`, `sample_rate`, `window_s`, and the methods `load` and `embed`. The
    fields of its `Config`, a frozen dataclass, are the settings of ``--set NAME.KEY=VALUE``.

    Attributes
    ----------
    window_s
        Length of a window in seconds.
    hop_s
        Seconds from the start of a window to that of the next; `window_s` if None.
    frame_s
        Seconds between the frames of a window; ``window_s / F`` if None.
    first_center_s
        Center of the first frame of a window, in seconds; ``frame_s / 2`` if None, or
        ``window_s / 2`` for one vector per window.
    files
        Files that affect the values, such as the weights; their hash is stored with the frames.
    batch_windows
        Maximum number of windows of one call of `embed`.
    dim, window_frames
        Dimensions of a frame, and number F of frames per window; learnt from `embed`.
    """

    Config: ClassVar[type] = NoSettings
    window_s: float
    hop_s: float | None = None
    frame_s: float | None = None
    first_center_s: float | None = None
    files: tuple[str | Path, ...] = ()
    batch_windows: int = 16
    window_frames: int
    _code_sha256: ClassVar[str]
    # The signal that is being cut, and those of its windows that further frames may need.
    _cut: tuple[Signal, dict[int, _Window]] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Hash the module when it is imported: later edits do not affect this process."""
        super().__init_subclass__(**options)
        cls._code_sha256 = code_sha256(cls)

    @abstractmethod
    def embed(self, windows: Signal) -> Any:
        """Embeddings of windows of any clips. Called without gradients.

        Parameters
        ----------
        windows
            Shape (n, samples), float32 in [-1, 1], at `sample_rate`; n is at most `batch_windows`.

        Returns
        -------
        Array or tensor of shape (n, dim), or (n, frames, dim).
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The user's settings, the hop, and a hash of the module."""
        spacing = {"window_s": self.window_s, "hop_s": self._hop / self.sample_rate}
        return {**super().settings, **spacing, "code_sha256": self._code_sha256}

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the files in `files`."""
        try:
            return files_sha256(self.files)
        except OSError as error:
            raise UsageError(f"{self.name}: {error.filename}: {error.strerror}") from None

    def learn(self) -> dict[str, Any]:
        """`dim` and `window_frames`, from the embeddings of two silent windows.

        Raises
        ------
        UsageError
            If `sample_rate`, `window_s` or `hop_s`, or what `embed` returns, is invalid.
        """
        rate = getattr(self, "sample_rate", None)
        if not (isinstance(rate, int) and rate > 0):
            raise UsageError(f"{self.name}: expected a sample rate in Hz above 0, found {rate!r}")
        for name in ("window_s", "hop_s"):
            seconds = getattr(self, name, None)
            if seconds is None and name == "hop_s":
                continue
            if not (isinstance(seconds, int | float) and 1 / rate <= seconds < math.inf):
                raise UsageError(
                    f"{self.name}: expected {name} in seconds, a sample or more, found {seconds!r}"
                )
        self.load_once()
        if taken := {"frames", "inputs", "network"} & vars(self).keys():
            raise UsageError(
                f"{self.name}: expected another name for self.{min(taken)}, which is a method of "
                "Extractor; such as self.model"
            )
        found = self._embedded(np.zeros((2, self._length), np.float32))
        if found.ndim not in (2, 3) or len(found) != 2 or not found.size:
            raise UsageError(
                f"{self.name}: expected an array of shape (2, dim) or (2, frames, dim) for 2 "
                f"windows of {self._length} samples, found {found.shape}"
            )
        self.window_frames = 1 if found.ndim == 2 else found.shape[1]
        self._check_hop()
        # The hash distinguishes the extractors of a file that changes while this process runs.
        return {
            "dim": found.shape[-1],
            "window_frames": self.window_frames,
            "learnt_from": self.weights_sha256,
        }

    def _check_hop(self) -> None:
        if self.window_frames == 1:
            return
        step = self._step / self.sample_rate
        if abs(self._hop - self._hop_frames * self._step) > 0.5 or not (
            1 <= self._hop_frames <= self.window_frames
        ):
            raise UsageError(
                f"{self.name}: expected a hop that is a multiple of {step:g} s, the distance of "
                f"the {self.window_frames} frames of a window, and at most "
                f"{self.window_frames * step:g} s; found {self._hop / self.sample_rate:g} s"
            )

    # Lengths in samples.

    @property
    def _length(self) -> int:
        return round(self.window_s * self.sample_rate)

    @property
    def _hop(self) -> int:
        return self._length if self.hop_s is None else round(self.hop_s * self.sample_rate)

    @property
    def _step(self) -> float:
        """From one frame to the next."""
        if self.window_frames == 1:
            return self._hop
        seconds = self.frame_s
        return self._length / self.window_frames if seconds is None else seconds * self.sample_rate

    @property
    def _hop_frames(self) -> int:
        """Frames from one window to the next."""
        return round(self._hop / self._step)

    @property
    def timing(self) -> FrameTiming:  # type: ignore[override]
        """Time grid of the frames."""
        step_s = self._step / self.sample_rate
        center_s = self.window_s / 2 if self.window_frames == 1 else step_s / 2
        if self.first_center_s is not None:
            center_s = self.first_center_s
        return FrameTiming(step_s, self.window_s, center_s)

    @property
    def batch_frames(self) -> int:  # type: ignore[override]
        """Frames of `batch_windows` windows."""
        return self.batch_windows * self._hop_frames

    def _windows(self, samples: int) -> int:
        return 1 + -(-max(0, samples - self._length) // self._hop)

    def frames(self, samples: int) -> int:
        """Number of frames of a signal; see `Windowed`."""
        windows = self._windows(samples)
        if self.window_frames == 1:
            return windows
        most = self.window_frames + self._hop_frames * (windows - 1)
        return max(1, min(math.ceil(samples / self._step - 1e-6), most))

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Window and index of each frame; array of pairs of shape (stop - start,)."""
        if self._cut is None or self._cut[0] is not signal or start == 0:
            if not np.isfinite(signal).all():
                raise ClipError("extract", f"{self.name}: the signal is not finite")
            self._cut = (signal, {})
        last, step = self._windows(len(signal)) - 1, self._hop_frames
        context = (self.window_frames - step) // 2
        kept, windows = self._cut[1], {}
        found = np.empty(stop - start, object)
        for i in range(start, stop):
            place = min(max(0, (i - context) // step), last)
            if place not in windows:
                first = place * self._hop
                new = _Window(signal[first : first + self._length])
                windows[place] = kept.get(place, new)
            found[i - start] = (windows[place], i - step * place)
        self._cut = None if stop == self.frames(len(signal)) else (signal, {place: windows[place]})
        return found

    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, dim), float32, from n windows and indices.

        Raises
        ------
        FeatregError
            If `embed` returns an array of another shape than it did before.
        """
        windows = [w for w in dict.fromkeys(w for w, _ in inputs) if w.frames is None]
        for first in range(0, len(windows), self.batch_windows):
            batch = windows[first : first + self.batch_windows]
            samples = np.zeros((len(batch), self._length), np.float32)
            for row, window in zip(samples, batch, strict=True):
                row[: len(window.samples)] = window.samples
            found = self._embedded(samples)
            expected: tuple[int, ...] = (len(batch), self.window_frames, self.dim)
            if found.ndim == 2:
                found = found[:, None]
            if found.shape != expected:
                raise FeatregError(
                    f"{self.name}: expected an array of shape (windows, frames, dim) = {expected} "
                    f"from the network, found {found.shape}"
                )
            for window, frames in zip(batch, found, strict=True):
                window.frames, window.samples = frames, window.samples[:0]
        values: Array = np.stack([window.frames[index] for window, index in inputs])
        return values

    def _embedded(self, windows: Signal) -> npt.NDArray[np.float32]:
        """What `embed` returns, as an array."""
        with torch.inference_mode():
            found = self.embed(windows)
        if isinstance(found, torch.Tensor):
            found = found.float().cpu().numpy()
        found = np.asarray(found)
        if found.dtype.kind not in "fiub":
            raise FeatregError(
                f"{self.name}: expected numbers from the network, found values of {found.dtype}"
            )
        return found.astype(np.float32, copy=False)
