"""OpenL3: embeddings of 1 s of audio, from a network trained on audio-visual correspondence.

References
----------
A. L. Cramer, H.-H. Wu, J. Salamon and J. P. Bello, "Look, listen, and learn more: design
choices for deep audio embeddings", ICASSP 2019.
R. Arandjelovic and A. Zisserman, "Look, listen and learn", ICCV 2017 (the network).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from featreg.datasets.base import Content, UsageError
from featreg.datasets.shards.timing import FrameTiming

from ..conv.make_stack import Convolution, Stack, make_stack
from ..conv.threads import in_threads
from ..weights.load import load_weights
from .base import Array, Extractor, Precision, Signal
from .openl3_frontend import SAMPLE_RATE, WINDOW, FrontEndName, InputRepr, make_front_end

# Input channels of each convolution, and output channels of the last one.
CHANNELS = (1, 64, 64, 128, 128, 256, 256, 512, 512)
CONVOLUTIONS = len(CHANNELS) - 1
POOLED = (1, 3, 5)  # convolutions followed by pooling
NORM_EPS = 1e-3

# Cells in frequency and time of the last feature maps; the maximum of each cell is kept.
CELLS = {512: (1, 1), 6144: (4, 3)}


class Network(nn.Module):
    """Published parameters: alternating batch norms and convolutions, eight of each.

    A ReLU follows every norm except the first, and 2x2 pooling follows the ReLU of every second
    convolution except the last. Inference uses the layers returned by `folded`.
    """

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
            self.add_module(f"bn{i}", nn.BatchNorm2d(inputs, eps=NORM_EPS))
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, 3, padding=1))


def norm(state: Mapping[str, Tensor], i: int) -> tuple[Tensor, Tensor]:
    """Gain and offset of the i-th batch norm, each of shape (channels,)."""
    gain = state[f"bn{i}.weight"] * torch.rsqrt(state[f"bn{i}.running_var"] + NORM_EPS)
    return gain, state[f"bn{i}.bias"] - gain * state[f"bn{i}.running_mean"]


def folded(state: Mapping[str, Tensor]) -> list[Convolution]:
    """Convolutions of `state`, with the following batch norms folded into their weights."""
    layers = []
    for i in range(CONVOLUTIONS):
        weight, bias = state[f"conv{i}.weight"], state[f"conv{i}.bias"]
        last = i == CONVOLUTIONS - 1
        if not last:
            gain, offset = norm(state, i + 1)
            weight, bias = weight * gain[:, None, None, None], bias * gain + offset
        layers.append(Convolution(weight, bias, relu=not last, pool=i in POOLED))
    return layers


def from_keras(layers: Sequence[tuple[str, Sequence[Array]]]) -> dict[str, Array]:
    """Convert the layers of a published weight file to a state dict of `Network`.

    The names of the layers contain arbitrary numbers, so batch norms and convolutions are
    recognized by the shapes of their arrays and by their order.

    Parameters
    ----------
    layers
        Name and arrays of each layer, in network order: gamma, beta, mean and variance, or
        a kernel of shape (3, 3, in, out) and a bias. Layers without arrays are skipped.

    Raises
    ------
    ValueError
        If a layer is neither a batch norm nor a convolution, or there are not eight of each.
    """
    state: dict[str, Array] = {}
    norms = convolutions = 0
    for name, arrays in layers:
        dimensions = [array.ndim for array in arrays]
        if dimensions == [1, 1, 1, 1]:
            keys = ("weight", "bias", "running_mean", "running_var")
            state |= {f"bn{norms}.{key}": value for key, value in zip(keys, arrays, strict=True)}
            norms += 1
        elif dimensions == [4, 1]:
            state[f"conv{convolutions}.weight"] = arrays[0].transpose(3, 2, 0, 1)
            state[f"conv{convolutions}.bias"] = arrays[1]
            convolutions += 1
        elif dimensions:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"layer {name}: expected a batch norm or convolution, found {shapes}")
    if (norms, convolutions) != (CONVOLUTIONS, CONVOLUTIONS):
        raise ValueError(
            f"expected {CONVOLUTIONS} batch norms and {CONVOLUTIONS} convolutions, "
            f"found {norms} and {convolutions}"
        )
    return state


@dataclass(frozen=True, slots=True)
class OpenL3Config:
    """Settings of `OpenL3`.

    Attributes
    ----------
    input_repr
        Input spectrogram: 256 or 128 mel bands, or 257 linear bins.
    content_type
        Videos on which the network was trained: ``music``, or ``env`` for environmental sounds.
    embedding_size
        512, the maxima of the last feature maps, or 6144, those of each of their 4x3 cells.
    hop
        Seconds between frames, truncated to whole samples at 48 kHz.
    center
        Whether the window of frame i is centered at i hops, with half a second of zeros before
        the clip; otherwise the window begins there.
    frontend
        Front end; see `openl3_frontend`.

    Raises
    ------
    UsageError
        If `hop` is below one sample or above the window of 1 s.
    """

    input_repr: InputRepr = "mel256"
    content_type: Content = "music"
    embedding_size: Literal[512, 6144] = 512
    hop: float = 0.1
    center: bool = True
    frontend: FrontEndName = "openl3-0.4"

    def __post_init__(self) -> None:
        if not 1 / SAMPLE_RATE <= self.hop <= WINDOW / SAMPLE_RATE:
            raise UsageError(
                f"openl3.hop={self.hop}: expected seconds between frames, from 1/{SAMPLE_RATE} "
                "to 1 (the window of a frame)"
            )

    @property
    def hop_samples(self) -> int:
        """Hop in samples."""
        return int(self.hop * SAMPLE_RATE)

    @property
    def before(self) -> int:
        """Zeros before the clip, in samples."""
        return WINDOW // 2 if self.center else 0


class OpenL3(Extractor):
    """OpenL3 embeddings of windows of one second, one per hop.

    The end of the clip is padded with zeros: there are as few frames as possible whose windows
    cover every sample.
    """

    name = "openl3"
    Config = OpenL3Config
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        config: OpenL3Config,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        self.dim = config.embedding_size
        self.timing = FrameTiming(
            hop_s=config.hop_samples / SAMPLE_RATE,
            window_s=WINDOW / SAMPLE_RATE,
            first_center_s=(WINDOW / 2 - config.before) / SAMPLE_RATE,
        )
        self.batch_frames = 32 if device == "cpu" else 128
        self._front_end = make_front_end(config.input_repr, config.frontend)

    @classmethod
    def weight_names(cls, config: OpenL3Config) -> tuple[str, ...]:
        """Name of the weights, one for each input representation and content type."""
        return (f"openl3-{config.input_repr}-{config.content_type}",)

    def frames(self, samples: int) -> int:
        """Number of frames: 1 + ceil((zeros before + samples - 48000) / hop), at least 1."""
        config: OpenL3Config = self.config
        return 1 + max(0, -(-(config.before + samples - WINDOW) // config.hop_samples))

    def windows(self, signal: Signal, start: int, stop: int) -> Signal:
        """Windows of the frames, padded with zeros; shape (stop - start, 48000)."""
        hop = self.config.hop_samples
        first = start * hop - self.config.before
        samples = np.zeros((stop - start - 1) * hop + WINDOW, np.float32)
        available = signal[max(first, 0) : max(first + len(samples), 0)]
        offset = max(-first, 0)
        samples[offset : offset + len(available)] = available
        return sliding_window_view(samples, WINDOW)[::hop]

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Spectrograms of the frames' windows in dB; shape (stop - start, bands, columns)."""
        windows = self.windows(signal, start, stop)
        return np.concatenate(in_threads(self._front_end, np.split(windows, len(windows))))

    def load(self) -> None:
        """Read the weights of the network."""
        self._network  # noqa: B018

    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, dim), float32, from spectrograms of shape (n, bands, columns)."""
        gain, offset, stack = self._network
        with torch.inference_mode():
            # Not folded into the first convolution, because its zero padding follows the norm.
            images = torch.add(torch.tensor(offset), torch.from_numpy(inputs), alpha=gain)
            frames: Array = stack(images, self._pool).cpu().numpy()
        return frames

    def _pool(self, maps: Tensor) -> Tensor:
        """Max-pool maps of shape (n, height, width, channels) over the `CELLS`; (n, dim)."""
        bands, frames = CELLS[self.dim]
        n, height, width, channels = maps.shape
        # One axis after the other: torch takes forty times as long for two axes at once.
        over_time = maps.view(n, height, frames, width // frames, channels).amax(3)
        return over_time.view(n, bands, height // bands, frames, channels).amax(2).flatten(1)

    @cached_property
    def _network(self) -> tuple[float, float, Stack]:
        (name,) = self.weight_names(self.config)
        state = load_weights(self.weights[name])
        gain, offset = (value.item() for value in norm(state, 0))
        size = self._front_end.bands, self._front_end.frames
        return gain, offset, make_stack(folded(state), *size, self.device, self.precision)
