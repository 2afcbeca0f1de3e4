"""Audio encoders of the Hugging Face Hub, through transformers: ``NAME=hf:MODEL_ID[@REVISION]``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featreg.datasets.base import FeatregError, UsageError

from .base import Array, Precision, Signal
from .huggingface_files import CONFIG, FRONT_END, folder_of, package, pinned, weight_files
from .huggingface_kinds import TRAINING_ONLY, find_kind, outputs, parse_layer
from .windowed import Windowed


@dataclass(frozen=True, slots=True)
class HuggingFaceConfig:
    """Settings of `HuggingFace`.

    Attributes
    ----------
    layer
        ``last``, the model's output; the number of a hidden state, where 0 is the input of the
        first layer and -1 the output of the last one; or a range ``a-b``, whose mean is taken.
    pooled
        For AST, one vector per window (the published clip embedding) instead of frames.
    trust_remote_code
        Whether to run the Python files that come with a model, such as MERT.
    """

    layer: str = "last"
    pooled: bool = False
    trust_remote_code: bool = False


class HuggingFace(Windowed):
    """Outputs of an audio encoder, at the sample rate of its feature extractor.

    - wav2vec 2.0, HuBERT, WavLM and other models with their convolutions (also MERT, which
      requires ``trust_remote_code``): one frame per 20 ms (13 ms at 24 kHz), from windows of 20 s
      that start every 16 s. A clip of n samples has ``1 + (n - 400) // 320`` frames.
    - AST: one frame per 0.1 s, the mean over the frequency patches, from windows of 10.24 s that
      start every 8.1 s. A clip has ``1 + (n - 2800) // 1600`` frames.
    - The encoder of Whisper: one frame per 20 ms, from windows of 30 s that start every 24 s.
    - The audio encoder of CLAP: one vector per window of 10 s, one every 5 s.

    Where windows overlap, each contributes its middle frames, which are at least 1 s (AST), 2 s
    or 3 s (Whisper) away from its ends. Windows start at the same times whatever the length of the
    file, so cutting the end of a file changes no frame that is more than one window away from the
    cut, except for rounding. A clip that is shorter than a window is processed as transformers
    does. A clip that is shorter than the first frame is padded with zeros.
    """

    Config = HuggingFaceConfig
    config: HuggingFaceConfig

    def __init__(
        self,
        config: HuggingFaceConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        self._folder = folder_of(self.source)
        self._front_end, model_config = self._read()
        kind = find_kind(model_config, self._front_end, config.pooled)
        if kind is None:
            raise UsageError(
                f"{self.name}: {self.source} is a model of type {model_config.model_type}; "
                "supported are wav2vec2, HuBERT, WavLM and their kin, AST, CLAP, Whisper"
            )
        if config.pooled and kind.grid:
            raise UsageError(
                f"--set {self.name}.pooled=true: only AST has one vector per window, found a "
                f"model of type {model_config.model_type}"
            )
        try:
            self._layer = parse_layer(config.layer, kind.layers)
        except UsageError as error:
            raise UsageError(f"--set {self.name}.{error}") from None
        self.kind = kind
        self.sample_rate = rate = int(self._front_end.sampling_rate)
        self.window_s, self.hop_s = kind.window / rate, kind.hop / rate
        if kind.grid:
            self.frame_s, self.first_center_s = kind.grid.step / rate, kind.grid.center / rate
        self.batch_windows = 4 if device == "cpu" else 16
        used = [CONFIG, FRONT_END]
        code = sorted(self._folder.glob("*.py")) if config.trust_remote_code else []
        self.files = (*weight_files(self._folder), *(self._folder / name for name in used), *code)

    @classmethod
    def resolve(cls, source: str) -> str:
        """Absolute path of a folder, or ``MODEL_ID@COMMIT``; downloads the model if needed."""
        return pinned(source)

    @property
    def settings(self) -> dict[str, Any]:
        """The user's settings, the spacing of windows, the precision, and the model's commit."""
        settings = {**super().settings, "precision": self.precision}
        del settings["code_sha256"]  # of this module, for which `revision` stands
        if not Path(self.source).is_dir():
            settings["model"] = self.source
        return settings

    def _read(self) -> tuple[Any, Any]:
        """The feature extractor and the configuration of the model."""
        for name in (CONFIG, FRONT_END):
            if not (self._folder / name).is_file():
                raise UsageError(
                    f"{self.name}: {self._folder / name} not found; expected a model with an audio "
                    "feature extractor, as transformers saves it"
                )
        transformers = package("transformers")
        trust = self.config.trust_remote_code
        try:
            described = json.loads((self._folder / CONFIG).read_text())
            known = described.get("model_type") in transformers.CONFIG_MAPPING
            if "auto_map" in described and not known and not trust:
                raise UsageError(
                    f"{self.name}: {self.source} contains Python code that transformers would run "
                    "on this machine; read it, and if you trust it add "
                    f"--set {self.name}.trust_remote_code=true"
                )
            options = {"trust_remote_code": trust, "local_files_only": True}
            front_end = transformers.AutoFeatureExtractor.from_pretrained(self._folder, **options)
            return front_end, transformers.AutoConfig.from_pretrained(self._folder, **options)
        except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
            raise UsageError(f"{self.name}: {self.source}: {_one_line(error)}") from error

    def learn(self) -> dict[str, Any]:
        """Dimension and frames per window, from the configuration, and the hash of the files."""
        return {
            "dim": self.kind.dim,
            "window_frames": self.kind.grid.frames if self.kind.grid else 1,
            "weights_sha256": self.weights_sha256,
        }

    def load(self) -> None:
        """Read the weights of the model."""
        transformers = package("transformers")
        try:
            with _quiet(transformers.utils.logging):
                model, found = getattr(transformers, self.kind.loader).from_pretrained(
                    self._folder,
                    dtype=torch.float32,
                    output_loading_info=True,
                    trust_remote_code=self.config.trust_remote_code,
                    local_files_only=True,
                )
        except MemoryError:
            raise
        except Exception as error:  # from many packages, and from the model's own code
            raise FeatregError(
                f"{self.name}: the model in {self._folder} cannot be loaded: {_one_line(error)}"
            ) from error
        if missing := sorted(set(found["missing_keys"]) - TRAINING_ONLY):
            raise FeatregError(
                f"{self.name}: the weights of {self.source} lack {len(missing)} parameters of the "
                f"model, such as {missing[0]}; choose a model whose encoder is complete"
            )
        if model.config.model_type == "whisper":
            model = model.get_encoder()
        self._model = model.eval().to(self.device)

    def frames(self, samples: int) -> int:
        """Number of frames of a signal; see `HuggingFace`."""
        return self.kind.grid.count(samples) if self.kind.grid else super().frames(samples)

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """The signal, padded with zeros if it is shorter than what the model needs."""
        missing = self.kind.least - len(signal)
        return np.pad(signal, (0, missing)) if missing > 0 else signal

    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, dim), float32, from n windows and indices.

        Only windows of equal length share a batch, unless the model's front end pads them.
        """
        lengths: dict[int, list[Any]] = {}
        for window in dict.fromkeys(window for window, _ in inputs):
            if window.frames is None:
                length = 0 if self.kind.padded else len(window.samples)
                lengths.setdefault(length, []).append(window)
        for windows in lengths.values():
            for first in range(0, len(windows), self.batch_windows):
                batch = windows[first : first + self.batch_windows]
                samples: Any = [window.samples for window in batch]  # of several lengths
                found = self._embedded(samples)
                for window, frames in zip(batch, found, strict=True):
                    window.frames = frames.reshape(-1, self.dim)
                    window.samples = window.samples[:0]
        values: Array = np.stack([window.frames[index] for window, index in inputs])
        return values

    def embed(self, windows: Any) -> Any:
        """Outputs for a sequence of windows; see `outputs`."""
        device = torch.device(self.device)
        with torch.autocast(device.type, torch.bfloat16, self.precision == "bfloat16"):
            return outputs(self.kind, self._model, self._front_end, windows, self._layer)


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Context without the progress bars of transformers and its list of unused parameters."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    """First line of the message of an exception of transformers."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
