"""The kinds of audio encoders in transformers, and the time grid of their outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from featreg.datasets.base import FeatregError, UsageError

# Of wav2vec2 and its kin, which accept any length: windows of 20 s, and the hop between them.
WINDOW_S, HOP_S = 20.0, 16.0
# Of the spectrogram of AST and Whisper, in samples at 16 kHz.
FFT_WINDOW, FFT_HOP = 400, 160

# Parameters that only training needs; published weights may lack them.
TRAINING_ONLY = {"masked_spec_embed"}


@dataclass(frozen=True, slots=True)
class Grid:
    """The frames of a window.

    Attributes
    ----------
    frames
        Number of frames of a full window.
    step, field
        From one frame to the next, and from the start to the end of the first one, in samples.
    center
        Center of the first frame, in samples.
    """

    frames: int
    step: int
    field: int
    center: float

    def count(self, samples: int) -> int:
        """Number of frames of a signal of any length, at least 1."""
        return 1 + max(0, samples - self.field) // self.step


@dataclass(frozen=True, slots=True)
class Kind:
    """How a model is called, and the time grid of its output.

    Attributes
    ----------
    loader
        Class of transformers that loads the model.
    dim
        Number of dimensions.
    layers
        Number of layers; 0 if only the final output can be used.
    window, hop
        Length of a window, and from one window to the next, in samples.
    grid
        The frames of a window; None for one vector per window.
    padded
        Whether the model's own front end pads every input to the length of a window.
    rows
        Patches over frequency for each frame, which are averaged; 0 for models without patches.
    least
        Samples that the model's front end and its convolutions need.
    """

    loader: str
    dim: int
    layers: int
    window: int
    hop: int
    grid: Grid | None = None
    padded: bool = True
    rows: int = 0
    least: int = 1


def find_kind(config: Any, front_end: Any, pooled: bool) -> Kind | None:
    """Kind of a model from its configuration; None if this kind of model is not supported."""
    kind = config.model_type
    if kind in ("clap", "clap_audio_model"):
        window = front_end.nb_max_samples
        return Kind("ClapAudioModelWithProjection", config.projection_dim, 0, window, window // 2)
    if kind == "audio-spectrogram-transformer":
        rows = 1 + (config.num_mel_bins - config.patch_size) // config.frequency_stride
        columns = 1 + (config.max_length - config.patch_size) // config.time_stride
        step = config.time_stride * FFT_HOP
        window, hop = config.max_length * FFT_HOP, step * (columns - 2 * (columns // 10))
        field = (config.patch_size - 1) * FFT_HOP + FFT_WINDOW
        grid = None if pooled else Grid(columns, step, field, field / 2)
        layers = 0 if pooled else config.num_hidden_layers
        return Kind(
            "AutoModel", config.hidden_size, layers, window, hop, grid, True, rows, FFT_WINDOW
        )
    if kind == "whisper":
        columns, step = config.max_source_positions, 2 * FFT_HOP
        window, hop = columns * step, step * (columns - 2 * (columns // 10))
        grid = Grid(columns, step, 1, 0.0)
        return Kind("AutoModel", config.d_model, config.encoder_layers, window, hop, grid)
    if type(front_end).__name__ == "Wav2Vec2FeatureExtractor" and hasattr(config, "conv_stride"):
        rate, step, field = front_end.sampling_rate, math.prod(config.conv_stride), 1
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
            field = (field - 1) * stride + kernel
        window, hop = round(WINDOW_S * rate), round(HOP_S * rate / step) * step
        grid = Grid(1 + (window - field) // step, step, field, field / 2)
        layers = config.num_hidden_layers
        return Kind(
            "AutoModel", config.hidden_size, layers, window, hop, grid, padded=False, least=field
        )
    return None


def parse_layer(text: str, layers: int) -> range | None:
    """Indices of the hidden states to average; None for the model's output.

    Parameters
    ----------
    text
        ``last``, a number, negative to count from the last layer, or a range ``a-b``.
    layers
        Number of layers; hidden state 0 is the input of the first layer.

    Raises
    ------
    UsageError
        If there are no such layers.
    """
    if text == "last":
        return None
    try:
        first, _, last = text.rpartition("-")
        single = not first
        a, b = (int(text), int(text)) if single else (int(first), int(last))
        if single and a < 0:
            a = b = a + layers + 1
        if not 0 <= a <= b <= layers:
            raise ValueError
    except ValueError:
        numbers = (
            f"a number from {-layers - 1} to {layers}, a range such as 0-{layers}, or last"
            if layers
            else "last, because this model has only one output"
        )
        raise UsageError(f"layer={text}: expected {numbers}") from None
    return range(a, b + 1)


def outputs(
    kind: Kind, model: Any, front_end: Any, windows: Sequence[Any], layer: range | None
) -> Tensor:
    """Outputs of the windows, shape (n, frames, dim), or (n, dim) for one vector per window.

    Parameters
    ----------
    kind, layer
        See `find_kind` and `parse_layer`.
    model, front_end
        The model and its feature extractor.
    windows
        Signals of shape (samples,); of equal length unless `kind` is padded.
    """
    given = front_end(list(windows), sampling_rate=front_end.sampling_rate, return_tensors="pt")
    if "is_longer" in given:  # the front end marks a random clip if none is longer than a window
        given["is_longer"] = torch.zeros_like(given["is_longer"])
    given = {name: tensor.to(model.device) for name, tensor in given.items()}
    found = model(**given, output_hidden_states=layer is not None)
    if kind.grid is None:
        vectors: Tensor = found.audio_embeds if "audio_embeds" in found else found.pooler_output
        return vectors
    states: Tensor = found.last_hidden_state
    if layer is not None:
        states = torch.stack([found.hidden_states[i] for i in layer]).mean(dim=0)
    if kind.rows:  # the first tokens stand for the whole window
        patches = states[:, -kind.rows * kind.grid.frames :]
        states = patches.reshape(len(states), kind.rows, -1, states.shape[2]).mean(dim=1)
    expected = kind.grid.frames if kind.padded else kind.grid.count(len(windows[0]))
    if states.shape[1] != expected:
        raise FeatregError(
            f"expected {expected} frames of {len(windows[0])} samples from the model, found "
            f"{states.shape[1]}"
        )
    return states
