"""OpenL3 as an installed ``openl3`` package computes it: a second opinion on `openl3`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from featreg.datasets.base import FeatregError, UsageError

from .base import Array, Precision, Signal
from .openl3 import OpenL3, OpenL3Config
from .openl3_frontend import SAMPLE_RATE, WINDOW


class OpenL3Package(OpenL3):
    """The same rows, timing and settings; the numbers are the package's, from its own weights.

    Each row's window goes to it as a second of its own.

    Raises
    ------
    UsageError
        If the package cannot do what is asked for.
    FeatregError
        If it is not installed.
    """

    def __init__(
        self,
        config: OpenL3Config,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        if config.frontend != "openl3-0.4":
            raise UsageError(
                f"--backend openl3 has no front end {config.frontend}; leave the option out, "
                "or --set openl3.frontend=openl3-0.4"
            )
        if precision != "float32":
            raise UsageError(f"--backend openl3 computes in float32, not {precision}")
        try:
            import openl3
        except ImportError:
            raise FeatregError(
                "--backend openl3: the package openl3 is not installed; pip install openl3, or "
                "leave the option out for featreg's own"
            ) from None
        self._package: Any = openl3

    @classmethod
    def weight_names(cls, config: OpenL3Config) -> tuple[str, ...]:
        """None: the package brings its own."""
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        """Those of `OpenL3`, and the package's version."""
        return {**super().settings, "backend": f"openl3 {self._package.__version__}"}

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """The rows' windows, shape (stop - start, 48000)."""
        return self.windows(signal, start, stop)

    def load(self) -> None:
        """Start TensorFlow, and have the package build its network."""
        self._model  # noqa: B018

    def network(self, inputs: Array) -> Array:
        """Rows of shape (n, dim), float32, from windows."""
        rows: Array
        rows, _ = self._package.get_audio_embedding(
            inputs.ravel(),
            SAMPLE_RATE,
            model=self._model,
            center=False,
            hop_size=WINDOW / SAMPLE_RATE,
            batch_size=self.batch_frames,
            verbose=False,
        )
        return rows

    @cached_property
    def _model(self) -> Any:
        config: OpenL3Config = self.config
        return self._package.models.load_audio_embedding_model(
            config.input_repr, config.content_type, config.embedding_size
        )
