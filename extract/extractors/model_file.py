"""Base class of features whose network is a file: ONNX, TorchScript, LiteRT."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from featreg.datasets.base import UsageError

from .base import Precision
from .windowed import Windowed

# Attributes that are learnt before those of `Windowed`.
_SPACING = ("sample_rate", "window_s", "hop_s", "frame_s")

# Maximum number of outputs that a message lists.
_LISTED = 10


@dataclass(frozen=True, slots=True)
class ModelFileConfig:
    """Settings of a model in a file. What is None is read from the file, if the file says it.

    Attributes
    ----------
    rate
        Sample rate of the model's input in Hz.
    window
        Length of a window in seconds.
    hop
        Seconds from one window to the next; `window` if the file does not say it.
    frame
        Seconds between the frames of a window; evenly spread over the window if the file does not
        say it.
    output
        Name of the output with the embeddings; required if there are several.
    """

    rate: int | None = None
    window: float | None = None
    hop: float | None = None
    frame: float | None = None
    output: str | None = None


class Facts(NamedTuple):
    """What a file says about its model; None for what it does not say.

    Attributes
    ----------
    rate
        Sample rate in Hz.
    samples
        Number of samples of the input.
    window, hop, frame
        Seconds; see `ModelFileConfig`.
    """

    rate: int | None = None
    samples: int | None = None
    window: float | None = None
    hop: float | None = None
    frame: float | None = None


class ModelFile(Windowed):
    """A network in the file `source`: see `Windowed` for windows and frames.

    The input is a batch of windows, shape (batch, samples), or one window, shape (samples,). The
    output has the shape (batch, dim) or (batch, frames, dim).
    """

    Config = ModelFileConfig
    config: ModelFileConfig

    def __init__(
        self,
        config: ModelFileConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        self.files = (self.source,)

    @classmethod
    def resolve(cls, source: str) -> str:
        """The absolute path of a file.

        Raises
        ------
        UsageError
            If there is no such file.
        """
        path = Path(source).expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"file not found: {path}")
        return str(path)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in use, also those that the file says; the file itself is hashed."""
        window_s, hop_s = self.window_s, self._hop / self.sample_rate
        return {
            "revision": self.revision,
            "output": self.config.output,
            "window": window_s,
            "hop": hop_s,
            "frame": self.frame_s,
        }

    @abstractmethod
    def facts(self) -> Facts:
        """What the file says. Called once the network is loaded."""

    def learn(self) -> dict[str, Any]:
        """Sample rate, window and hop, from the settings or the file, and the size of a frame.

        Raises
        ------
        UsageError
            If the file cannot be used, or does not say what is not set.
        """
        self.load_once()
        config, facts, file = self.config, self.facts(), Path(self.source).name
        rate = config.rate or facts.rate
        if rate is None:
            raise UsageError(
                f"{self.name}: {file} does not say its sample rate; add --set {self.name}.rate=HZ"
            )
        window = config.window or facts.window
        if facts.samples is not None:
            if window is not None and round(window * rate) != facts.samples:
                raise UsageError(
                    f"{self.name}: {file} takes windows of {facts.samples} samples, "
                    f"{facts.samples / rate:g} s at {rate} Hz; found a window of {window:g} s"
                )
            window = facts.samples / rate
        if window is None:
            raise UsageError(
                f"{self.name}: {file} takes windows of any length; add --set "
                f"{self.name}.window=SECONDS"
            )
        self.sample_rate, self.window_s = rate, window
        self.hop_s, self.frame_s = config.hop or facts.hop or window, config.frame or facts.frame
        found = {name: getattr(self, name) for name in _SPACING}
        return {**found, **super().learn()}

    def chosen(self, names: list[str], endings: bool = False) -> str:
        """The name of the output with the embeddings, of those that the model has.

        Raises
        ------
        UsageError
            If none or several are meant.
        """
        asked = self.config.output
        if asked is None and len(names) == 1:
            return names[0]
        found = [n for n in names if asked and (n == asked or (endings and n.endswith(asked)))]
        if asked in found or len(found) == 1:
            return asked if asked in found else found[0]
        what = f"has no output {asked!r}" if asked else "has several outputs"
        if len(found) > 1:
            what = f"has several outputs that end in {asked!r}"
        listed = ", ".join((found or names)[:_LISTED])
        raise UsageError(
            f"{self.name}: {Path(self.source).name} {what}; add --set {self.name}.output=NAME with "
            f"one of {listed}{', ...' if len(found or names) > _LISTED else ''}"
        )


def require(module: str, extra: str, feature: str) -> Any:
    """The module of an optional package.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"{feature} needs the package {module.partition('.')[0].replace('_', '-')}: pip "
            f"install '.[{extra}]' in featreg's repository"
        ) from None
