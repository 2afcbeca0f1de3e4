"""VGGish: 128-dimensional embeddings per 0.96 s, as in the features of AudioSet.

References
----------
S. Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017.
J. F. Gemmeke et al., "Audio Set: an ontology and human-labeled dataset for audio events",
ICASSP 2017 (the PCA with whitening and the 8 bits).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from featreg.datasets.shards.timing import FrameTiming

from ..conv.make_stack import Convolution, make_stack
from ..conv.threads import in_threads
from ..weights.load import load_weights
from .base import Array, Extractor, Precision, Quantization, Signal
from .mel import hz_to_mel

SAMPLE_RATE = 16000
WINDOW = 400
HOP = 160
N_FFT = 512
BANDS = 64
FRAMES = 96  # spectrogram frames of an example
LOG_OFFSET = 0.01

EXAMPLE = (FRAMES - 1) * HOP + WINDOW  # samples of an example: 0.975 s
EXAMPLE_HOP = FRAMES * HOP  # samples from one example to the next: 0.96 s

DIM = 128
CLIP = 2.0  # whitened values from -CLIP to CLIP are quantized to 8 bits
STEPS = 255

# Input and output channels, by index in torchvggish's lists of layers; the other layers are
# activations and pooling.
CONVOLUTIONS = {
    "0": (1, 64),
    "3": (64, 128),
    "6": (128, 256),
    "8": (256, 256),
    "11": (256, 512),
    "13": (512, 512),
}
POOLED = ("0", "3", "8", "13")
CONNECTED = {"0": (6 * 4 * 512, 4096), "2": (4096, 4096), "4": (4096, DIM)}

# Scopes of the published checkpoint, and the names of their layers in `Network`.
SCOPES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3/conv3_1": "features.6",
    "conv3/conv3_2": "features.8",
    "conv4/conv4_1": "features.11",
    "conv4/conv4_2": "features.13",
    "fc1/fc1_1": "embeddings.0",
    "fc1/fc1_2": "embeddings.2",
    "fc2": "embeddings.4",
}


def mel_filters() -> npt.NDArray[np.float64]:
    """Mel filters from 125 to 7500 Hz, shape (257, 64).

    The filters are triangles of height 1 whose edges are straight in mel.
    """
    low, high = hz_to_mel([125.0, 7500.0], "htk")
    corners = np.linspace(low, high, BANDS + 2)
    left, top, right = corners[:-2], corners[1:-1], corners[2:]
    bins = hz_to_mel(np.arange(N_FFT // 2 + 1) * (SAMPLE_RATE / N_FFT), "htk")[:, None]
    rising = (bins - left) / (top - left)
    falling = (right - bins) / (right - top)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


# A periodic Hann window.
_TAPER = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
_FILTERS = mel_filters().astype(np.float32)


def log_mel(samples: Signal) -> Array:
    """Log-mel spectrogram of one example: log(mel magnitudes + 0.01).

    Parameters
    ----------
    samples
        Samples of shape (15600,), float32 in [-1, 1], at 16 kHz.

    Returns
    -------
    Spectrogram of shape (96, 64), float32: frames by mel bands.
    """
    frames = sliding_window_view(samples, WINDOW)[::HOP]
    # In double precision: with a loud tone, the rounding errors of a float32 transform change
    # the silent bands by more than 1e-3 after the logarithm.
    spectrum = np.fft.rfft(frames * _TAPER, N_FFT)
    magnitudes = np.abs(spectrum.astype(np.complex64))
    # In eight parts: NumPy's BLAS computes such small products on one thread, and starting other
    # threads takes longer than the product.
    bands = (magnitudes.reshape(8, FRAMES // 8, -1) @ _FILTERS).reshape(FRAMES, BANDS)
    loudness: Array = np.log(bands + np.float32(LOG_OFFSET))
    return loudness


class Network(nn.Module):
    """Parameters with the names of torchvggish; `Embedding` computes the network."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {place: nn.Conv2d(*channels, 3) for place, channels in CONVOLUTIONS.items()}
        )
        self.embeddings = nn.ModuleDict(
            {place: nn.Linear(*channels) for place, channels in CONNECTED.items()}
        )


class Embedding:
    """Computes embeddings of shape (n, 128), float32, of examples of shape (n, 96, 64).

    Parameters
    ----------
    state
        State dict of `Network`.
    device, precision
        See `Extractor`.
    """

    def __init__(self, state: Mapping[str, Tensor], device: str, precision: Precision) -> None:
        convolutions = [
            Convolution(
                state[f"features.{place}.weight"],
                state[f"features.{place}.bias"],
                pool=place in POOLED,
            )
            for place in CONVOLUTIONS
        ]
        self._stack = make_stack(convolutions, FRAMES, BANDS, device, precision)
        *hidden, last = (
            (state[f"embeddings.{place}.weight"], state[f"embeddings.{place}.bias"])
            for place in CONNECTED
        )
        self._device, self._dtype = device, getattr(torch, precision)
        self._hidden = [[array.to(device, self._dtype) for array in layer] for layer in hidden]
        self._last = [array.to(device) for array in last]

    def __call__(self, examples: Array) -> Tensor:
        """Embeddings: the output of the last layer, which has no activation."""
        maps = self._stack(torch.from_numpy(examples).to(self._device))
        values = maps.flatten(1).to(self._dtype)  # (height, width, channel), as trained
        for weight, bias in self._hidden:
            values = F.linear(values, weight, bias).relu_()
        return F.linear(values.float(), *self._last)


def from_tensorflow(variables: Mapping[str, Array]) -> dict[str, Array]:
    """Convert the variables of the published checkpoint to a state dict of `Network`.

    Parameters
    ----------
    variables
        Arrays by name, such as ``vggish/conv1/weights``: kernels of shape
        (height, width, in, out) or (in, out). Other variables (of an optimizer) are ignored.

    Raises
    ------
    KeyError
        If a variable is missing.
    """
    found = {}
    for scope, layer in SCOPES.items():
        kernel = variables[f"vggish/{scope}/weights"]
        found[f"{layer}.weight"] = np.moveaxis(kernel, (-1, -2), (0, 1))
        found[f"{layer}.bias"] = variables[f"vggish/{scope}/biases"]
    return found


@dataclass(frozen=True, slots=True)
class VggishConfig:
    """Settings of `Vggish`.

    Attributes
    ----------
    output
        ``pca8``: embedding after PCA whitening, clipped to [-2, 2] and quantized to 8 bits, as
        published with AudioSet; ``pca``: embedding after PCA whitening; ``raw``: embedding of
        the network; ``relu``: its positive part, as in the first releases of VGGish.
    """

    output: Literal["pca8", "pca", "raw", "relu"] = "pca8"


class Vggish(Extractor):
    """VGGish embeddings; frame i is computed from the 0.975 s that begin at 0.96 i seconds.

    A remainder of less than 0.96 s at the end of a clip is dropped, as in the published code. A
    clip shorter than one example, for which the published code returns no frame, is padded with
    zeros to one frame.
    """

    name = "vggish"
    Config = VggishConfig
    sample_rate = SAMPLE_RATE
    dim = DIM
    timing = FrameTiming(
        hop_s=EXAMPLE_HOP / SAMPLE_RATE,
        window_s=EXAMPLE / SAMPLE_RATE,
        first_center_s=EXAMPLE / SAMPLE_RATE / 2,
    )

    def __init__(
        self,
        config: VggishConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        # Frames are computed in blocks of constant shape, each on one thread, so that a frame is
        # bitwise independent of the other frames and of the number of threads.
        self._block = 33 if device == "cpu" else 256
        self.batch_frames = self._block * (torch.get_num_threads() if device == "cpu" else 1)
        if config.output == "pca8":
            self.dtype = np.uint8
            self.quantization = Quantization(scale=2 * CLIP / STEPS, offset=-CLIP)

    @classmethod
    def weight_names(cls, config: VggishConfig) -> tuple[str, ...]:
        """Names of the weights of the network, and of the PCA if it is used."""
        return ("vggish", "vggish_pca") if config.output in ("pca8", "pca") else ("vggish",)

    def frames(self, samples: int) -> int:
        """Number of whole examples, at least 1."""
        return max(1, 1 + (samples - EXAMPLE) // EXAMPLE_HOP)

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Log-mel examples, shape (stop - start, 96, 64), float32."""
        if len(signal) < EXAMPLE:
            signal = np.pad(signal, (0, EXAMPLE - len(signal)))
        starts = range(start * EXAMPLE_HOP, stop * EXAMPLE_HOP, EXAMPLE_HOP)
        return np.stack([log_mel(signal[first : first + EXAMPLE]) for first in starts])

    def load(self) -> None:
        """Read the weights of the network."""
        self._embedding  # noqa: B018

    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, 128), float32, from examples of shape (n, 96, 64)."""
        blocks = -(-len(inputs) // self._block)
        examples = np.zeros((blocks * self._block, FRAMES, BANDS), np.float32)
        examples[: len(inputs)] = inputs
        embedding = self._embedding  # loaded here, before several threads ask for it

        def compute(block: Array) -> Array:
            with torch.inference_mode():
                values: Array = self._output(embedding(block)).cpu().numpy()
                return values

        return np.concatenate(in_threads(compute, np.split(examples, blocks)))[: len(inputs)]

    def _output(self, embeddings: Tensor) -> Tensor:
        if self.config.output == "raw":
            return embeddings
        if self.config.output == "relu":
            return embeddings.relu()
        return (embeddings - self._pca["means"]) @ self._pca["eigen_vectors"].T

    def quantize(self, values: Array) -> Array:
        """Embeddings in the stored type: for ``pca8``, integers for 255 steps from -2 to 2."""
        if self.config.output != "pca8":
            return super().quantize(values)
        steps = (values.clip(-CLIP, CLIP) + CLIP) * (STEPS / (2 * CLIP))
        return steps.astype(np.uint8)  # truncated, as in the published code

    @cached_property
    def _embedding(self) -> Embedding:
        return Embedding(load_weights(self.weights["vggish"]), self.device, self.precision)

    @cached_property
    def _pca(self) -> dict[str, Tensor]:
        return load_weights(self.weights["vggish_pca"], self.device)
