"""Models of the HEAR API: any module that defines `load_model` and its embeddings.

J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", NeurIPS 2021 Competitions
and Demonstrations Track, https://hearbenchmark.com/hear-api.html.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from featreg.datasets.base import ClipError, UsageError
from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Signal, files_sha256
from .custom import WholeClip, fault, load_module

Output = Literal["timestamps", "scene"]

# Seconds of the signal from which the time grid is learnt, and of a piece of a scene.
_PROBE_S, _PIECE_S = 2.0, 10.0

# Maximum difference of a timestamp from a regular time grid: seconds, or this share of the hop.
_JITTER_S, _JITTER = 1e-3, 0.05

# Pieces of a clip in one call.
_BATCH = 8


@dataclass(frozen=True, slots=True)
class HearConfig:
    """Settings of `Hear`.

    Attributes
    ----------
    output
        ``timestamps``: the embeddings at regular times. ``scene``: one embedding for each piece of
        `window` seconds.
    window
        For ``scene``, length of a piece in seconds, 10 by default. For ``timestamps``, seconds of
        audio from which an embedding is computed, which the API does not tell; the hop by default.
    """

    output: Output = "timestamps"
    window: float | None = None


class Hear(WholeClip):
    """Embeddings of a HEAR module, computed from the whole clip.

    The time grid of ``timestamps`` is that of the module's timestamps, which must be regular, and
    the same for every clip. For ``scene``, a clip of n pieces has n embeddings; the last piece is
    padded with zeros, unless it is the only one.
    """

    Config = HearConfig
    config: HearConfig

    @classmethod
    def resolve(cls, source: str) -> str:
        """``MODULE[:WEIGHTS]`` with an absolute path.

        Raises
        ------
        UsageError
            If there is no such file of weights.
        """
        module, colon, weights = source.partition(":")
        path = Path(weights).expanduser().absolute()
        if colon and not path.is_file():
            raise UsageError(f"file not found: {path}; expected NAME=hear:MODULE:WEIGHTS")
        return f"{module}:{path}" if colon else module

    @cached_property
    def _files(self) -> tuple[str, ...]:
        weights = self.source.partition(":")[2]
        return (weights,) if weights else ()

    @property
    def settings(self) -> dict[str, Any]:
        """The output, and a hash of the package with the module."""
        return {
            "revision": self.revision,
            "output": self.config.output,
            "window": self.timing.window_s,
            "code_sha256": self._package_sha256,
        }

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the file with the weights; empty if the module has them."""
        return files_sha256(self._files)

    @cached_property
    def _package_sha256(self) -> str:
        """Hash of the Python files of the package that contains the module."""
        spec = importlib.util.find_spec(self.source.partition(":")[0].partition(".")[0])
        if spec is None or spec.origin is None:
            return ""
        file = Path(spec.origin)
        files = sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def load(self) -> None:
        """Import the module and load its model.

        Raises
        ------
        UsageError
            If the module cannot be imported, does not follow the API, or cannot load its model.
        """
        name = self.source.partition(":")[0]
        expected = "NAME=hear:MODULE[:WEIGHTS], such as birds=hear:hearbaseline.naive"
        module = load_module(name, f"--features {self.name}=hear:{self.source}", expected)
        for function in ("load_model", f"get_{self._embeddings}_embeddings"):
            if not callable(getattr(module, function, None)):
                raise UsageError(
                    f"{self.name}: {name} does not define {function}, so it is not a module of the "
                    "HEAR API; expected the module that does"
                )
        try:
            with torch.random.fork_rng():  # a model without weights is the same in every worker
                torch.manual_seed(0)
                model = module.load_model(*self._files)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{self.name}: {name}.load_model: {fault(error)}") from error
        self._module = module
        self._model = model.to(self.device) if isinstance(model, torch.nn.Module) else model

    @property
    def _embeddings(self) -> str:
        return "timestamp" if self.config.output == "timestamps" else "scene"

    def learn(self) -> dict[str, Any]:
        """Sample rate, dimensions and time grid.

        Raises
        ------
        UsageError
            If the model does not tell them, or its timestamps are not regular.
        """
        self.load_once()
        self.sample_rate = self._told("sample_rate")
        self.dim = self._told(f"{self._embeddings}_embedding_size")
        window = self.config.window
        if window is not None and not 1 / self.sample_rate <= window < float("inf"):
            raise UsageError(f"--set {self.name}.window={window:g}: expected seconds above 0")
        if self.config.output == "scene":
            window = window or _PIECE_S
            self.timing = FrameTiming(window, window, window / 2)
        else:
            self.timing = self._learn_times()
        spacing = {"sample_rate": self.sample_rate, "dim": self.dim, "timing": self.timing}
        # The hashes distinguish the extractors of files that change while this process runs.
        return {**spacing, "learnt_from": f"{self._package_sha256} {self.weights_sha256}"}

    def _told(self, key: str) -> int:
        """A number that the model has to tell."""
        found = getattr(self._model, key, None)
        if not (isinstance(found, int) and found > 0):
            raise UsageError(
                f"{self.name}: expected a number above 0 as {key} of the model of "
                f"{self._module.__name__}, found {found!r}"
            )
        return found

    def _learn_times(self) -> FrameTiming:
        probe = np.random.default_rng(0).uniform(-0.1, 0.1, round(_PROBE_S * self.sample_rate))
        try:
            _, times = self._timestamps(probe.astype(np.float32))
        except ClipError as error:
            raise UsageError(error.reason) from None
        except (Exception, SystemExit) as error:
            raise UsageError(f"{self.name}: {fault(error)}") from error
        if len(times) < 2 or not times[-1] > times[0]:
            raise UsageError(
                f"{self.name}: expected several timestamps that increase for {_PROBE_S:g} s of "
                f"audio, found {_listed(times)} s; use --set {self.name}.output=scene"
            )
        hop = round(float(times[-1] - times[0]) / (len(times) - 1), 9)
        timing = FrameTiming(hop, self.config.window or hop, round(float(times[0]), 9))
        if (place := _irregular(times, timing)) is not None:
            raise UsageError(
                f"{self.name}: expected timestamps at a constant distance, found "
                f"{_listed(times[max(0, place - 2) :])} s; use --set {self.name}.output=scene"
            )
        return timing

    def compute(self, signal: Signal) -> npt.ArrayLike:
        """Embeddings of a clip, shape (frames, dim).

        Raises
        ------
        ClipError
            If the module returns other shapes or times than it promises.
        """
        self.load_once()
        if self.config.output == "scene":
            return self._scene(signal)
        found, times = self._timestamps(signal)
        if (place := _irregular(times, self.timing)) is not None:
            raise ClipError(
                "extract",
                f"{self.name}: timestamp {place} is {times[place]:.3f} s, expected "
                f"{self.timing.centers(place + 1)[-1]:.3f} s, as for other clips",
            )
        return found

    def _timestamps(self, signal: Signal) -> tuple[Array, Array]:
        """Embeddings, shape (frames, dim), and their times in seconds, shape (frames,)."""
        audio = torch.from_numpy(signal)[None].to(self.device)
        with torch.inference_mode():
            pair = self._module.get_timestamp_embeddings(audio, self._model)
        found, times = (_array(each) for each in pair)
        if found.ndim != 3 or len(found) != 1 or found.shape[2] != self.dim:
            raise self._other_shape(found, f"(1, frames, {self.dim})")
        if times.shape != found.shape[:2]:
            raise ClipError(
                "extract",
                f"{self.name}: expected as many timestamps as embeddings, found shapes "
                f"{times.shape} and {found.shape}",
            )
        return found[0], times[0].astype(np.float64) / 1000

    def _scene(self, signal: Signal) -> Array:
        length = round(self.timing.hop_s * self.sample_rate)
        if len(signal) > length:
            pieces = np.zeros((-(-len(signal) // length), length), np.float32)
            pieces.ravel()[: len(signal)] = signal
        else:
            pieces = signal[None]
        found = []
        for first in range(0, len(pieces), _BATCH):
            audio = torch.from_numpy(pieces[first : first + _BATCH]).to(self.device)
            with torch.inference_mode():
                part = _array(self._module.get_scene_embeddings(audio, self._model))
            if part.shape != (len(audio), self.dim):
                raise self._other_shape(part, (len(audio), self.dim))
            found.append(part)
        return np.concatenate(found)

    def _other_shape(self, found: Array, expected: object) -> ClipError:
        reason = f"expected embeddings of shape {expected}, found {found.shape}"
        return ClipError("extract", f"{self.name}: {reason}")


def _array(found: Any) -> Array:
    """A tensor of any framework as an array."""
    if isinstance(found, torch.Tensor):
        return found.float().cpu().contiguous().numpy()
    return np.asarray(found)


def _irregular(times: Array, timing: FrameTiming) -> int | None:
    """Index of the first time that is not on the time grid, if any."""
    limit = max(_JITTER_S, _JITTER * timing.hop_s)
    off = np.abs(times - timing.centers(len(times))) > limit
    return int(np.argmax(off)) if off.any() else None


def _listed(times: Sequence[float] | Array) -> str:
    return ", ".join(f"{each:.3f}" for each in times[:5]) or "none"
