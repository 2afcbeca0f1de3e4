"""The module that is exported to ONNX and TorchScript: from audio or features to probabilities.

A model that needs only audio maps ``audio`` of shape (n, samples), mono in [-1, 1] at its sample
rate, to probabilities of shape (n, classes), for any n and any length. Audio shorter than a
training crop is repeated from its start, as in training; longer audio is processed as a whole
(`Classifier.predict` averages over chunks instead, as in evaluation).

Extractors are not part of it. A model that needs features has them as an input: ``features`` of
shape (n, frames, B_F), aligned as in the shards and not standardized. A probe accepts any number
of frames. Other models accept those of one chunk, and for Concat and FiLM also the ``audio`` of
the chunk, with exactly as many samples as a training crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..evaluation.predict import probabilities
from ..models.base import Tagger
from ..models.sizes import at_least
from .model_file import Card

Array = npt.NDArray[np.float32]


class ExportedModel(nn.Module):
    """Base class of the exported modules.

    Parameters
    ----------
    tagger
        Model in evaluation mode.
    card
        Card of the model.

    Attributes
    ----------
    inputs
        Names of the inputs.
    """

    inputs: tuple[str, ...]

    def __init__(self, tagger: Tagger, card: Card) -> None:
        super().__init__()
        self.tagger, self.task, self.samples = tagger, card.task, card.samples
        self.rate, self.row = card.sample_rate, card.frame_samples

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs for tracing, two clips."""
        raise NotImplementedError

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Return the dimensions of each input that may vary."""
        raise NotImplementedError

    def trials(self, rng: np.random.Generator) -> Iterator[tuple[str, tuple[Array, ...]]]:
        """Yield inputs on which an exported copy is compared, each with a description."""
        raise NotImplementedError


class AudioModel(ExportedModel):
    """From audio to probabilities; see the module's docstring.

    Shape
    -----
    (n, samples) -> (n, classes).
    """

    inputs: ClassVar[tuple[str, ...]] = ("audio",)  # type: ignore[misc]

    def forward(self, audio: Tensor) -> Tensor:
        """See the class."""
        length = audio.shape[1]
        whole = (length + self.row - 1) // self.row * self.row
        times = (self.samples + whole - 1) // whole  # 1 for audio that is long enough
        repeated = F.pad(audio, (0, whole - length)).repeat(1, times)
        audio = repeated[:, : at_least(length, self.samples)]
        return probabilities(self.tagger(audio).logits, self.task)

    def example(self) -> tuple[Tensor, ...]:
        """See the base class."""
        return (torch.zeros(2, self.samples),)

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """See the base class."""
        return ({0: torch.export.Dim("n"), 1: torch.export.Dim("samples", min=2)},)

    def trials(self, rng: np.random.Generator) -> Iterator[tuple[str, tuple[Array, ...]]]:
        """See the base class."""
        for what, clips, length in (
            ("random audio", 1, self.samples),
            ("short audio", 1, self.samples // 10),
            ("a batch of longer audio", 3, self.samples * 7 // 4),
        ):
            audio = (0.1 * rng.standard_normal((clips, length))).astype(np.float32)
            yield f"{what} ({clips} x {length / self.rate:g} s)", (audio,)


class FeatureModel(ExportedModel):
    """From features, and audio if the model needs it, to probabilities.

    Shape
    -----
    ((n, samples),) (n, frames, B_F) -> (n, classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tagger: Tagger, card: Card) -> None:
        super().__init__(tagger, card)
        self.inputs = ("audio", "features") if tagger.needs_audio else ("features",)
        self.dim, self.frames = card.feature_dim, max(1, card.samples // card.frame_samples)
        self.any_length = card.fusion == "probe"
        self.register_buffer("mean", torch.tensor(card.feature_mean or (0.0,)))
        self.register_buffer("std", torch.tensor(card.feature_std or (1.0,)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """See the class."""
        audio = inputs[0] if len(inputs) > 1 else None
        features = (inputs[-1] - self.mean) / self.std
        return probabilities(self.tagger(audio, features).logits, self.task)

    def _inputs(self, clips: int, frames: int) -> tuple[tuple[int, ...], ...]:
        features = (clips, frames, self.dim)
        return ((clips, self.samples), features) if len(self.inputs) > 1 else (features,)

    def example(self) -> tuple[Tensor, ...]:
        """See the base class."""
        return tuple(torch.zeros(shape) for shape in self._inputs(2, self.frames))

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """See the base class."""
        clips = torch.export.Dim("n")
        frames = {1: torch.export.Dim("frames", min=2)} if self.any_length else {}
        shapes = tuple({0: clips} for _ in self.inputs[:-1])
        return ((*shapes, {0: clips, **frames}),)  # of *inputs

    def trials(self, rng: np.random.Generator) -> Iterator[tuple[str, tuple[Array, ...]]]:
        """See the base class."""
        for clips, frames in (
            (1, self.frames),
            (3, self.frames),
            (2, self.frames * 7 // 4 if self.any_length else self.frames),
        ):
            arrays = (0.1 * rng.standard_normal(shape) for shape in self._inputs(clips, frames))
            what = f"random {' and '.join(self.inputs)} ({clips} x {frames} frames)"
            yield what, tuple(array.astype(np.float32) for array in arrays)


def exported_model(tagger: Tagger, card: Card) -> ExportedModel:
    """Return the module to export."""
    return (FeatureModel if card.features else AudioModel)(tagger, card).eval()


def contents(card: Card, format: str = "onnx") -> str:
    """Return a sentence that says which part of a model a file contains, and its inputs."""
    if not card.features:
        return (
            f"contains the whole model: audio (n, samples) at {card.sample_rate} Hz in, "
            f"probability (n, {len(card.classes)}) out"
        )
    names = "+".join(card.features)
    if format == "safetensors":
        return (
            f"contains the classifier and the description of its extractors ({names}); "
            "featreg.load_model computes the features from audio"
        )
    frames = "frames" if card.fusion == "probe" else max(1, card.samples // card.frame_samples)
    audio = f"audio (n, {card.samples}) at {card.sample_rate} Hz and "
    return (
        f"contains the classifier, not the extractors: "
        f"{audio if card.fusion in ('concat', 'film') else ''}features (n, {frames}, "
        f"{card.feature_dim}) in, which are {names} at {card.resolution_s:g} s per frame as "
        f"`prep align --mode {card.mode}` computes them; probability (n, {len(card.classes)}) out"
    )
