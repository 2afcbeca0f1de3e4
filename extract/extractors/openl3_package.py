"""OpenL3 computed by the package ``openl3``, for comparison with `openl3`."""

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
    """OpenL3 with the package's implementation and weights, and the same time grid and settings.

    The window of each frame is passed to the package separately.

    Raises
    ------
    UsageError
        If the package does not support the settings.
    FeatregError
        If the package is not installed.
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
                f"--backend openl3 has no front end {config.frontend}; omit the option, "
                "or use --set openl3.frontend=openl3-0.4"
            )
        if precision != "float32":
            raise UsageError(f"--backend openl3 computes in float32, not {precision}")
        try:
            import openl3
        except ImportError:
            raise FeatregError(
                "--backend openl3: the package openl3 is not installed; run `pip install openl3`, "
                "or omit the option to use featreg's implementation"
            ) from None
        self._package: Any = openl3

    @classmethod
    def weight_names(cls, config: OpenL3Config) -> tuple[str, ...]:
        """No weights: the package has its own."""
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of `OpenL3`, and the version of the package."""
        return {**super().settings, "backend": f"openl3 {self._package.__version__}"}

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Windows of the frames, shape (stop - start, 48000)."""
        return self.windows(signal, start, stop)

    def load(self) -> None:
        """Load TensorFlow and the package's network."""
        self._model  # noqa: B018

    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, dim), float32, from windows of shape (n, 48000)."""
        frames: Array
        frames, _ = self._package.get_audio_embedding(
            inputs.ravel(),
            SAMPLE_RATE,
            model=self._model,
            center=False,
            hop_size=WINDOW / SAMPLE_RATE,
            batch_size=self.batch_frames,
            verbose=False,
        )
        return frames

    @cached_property
    def _model(self) -> Any:
        config: OpenL3Config = self.config
        return self._package.models.load_audio_embedding_model(
            config.input_repr, config.content_type, config.embedding_size
        )
