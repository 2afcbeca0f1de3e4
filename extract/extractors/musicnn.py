"""musicnn: what a network trained to tag music makes of three seconds of it.

The published weights are ``musicnn-msd``, trained on the Million Song Dataset, and
``musicnn-mtt``, trained on MagnaTagATune.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from featreg.datasets.base import UsageError
from featreg.datasets.shards.timing import FrameTiming

from ..conv.make_stack import exact
from ..conv.threads import in_threads
from ..weights.load import load_weights
from .base import Array, Extractor, Precision, Signal
from .mel import mel_filterbank
from .musicnn_network import PATCH, Network, Output, from_tensorflow

__all__ = ["Musicnn", "MusicnnConfig", "from_tensorflow"]

SAMPLE_RATE = 16000
N_FFT = 512
HOP = 256
BANDS = 96

_WINDOW = np.hanning(N_FFT + 1)[:-1]
_FLOAT16_MAX = np.finfo(np.float16).max
_FILTERS = torch.from_numpy(
    mel_filterbank(SAMPLE_RATE, N_FFT, BANDS, 0.0, SAMPLE_RATE / 2, "slaney", "slaney").T
).double()


def log_mel(signal: Signal, start: int, stop: int) -> Array:
    """Frames `start` to `stop` of the log-mel spectrogram of a signal with zeros around it.

    Frame j is ``log10(10000 m + 1)`` of the 96 mel powers m of the 512 samples around
    sample 256 j (periodic Hann window). The published package rounds m to float16; so does
    this.

    Returns
    -------
    Shape (stop - start, 96), float32, 0 or above.
    """
    first = HOP * start - N_FFT // 2
    last = HOP * (stop - 1) + N_FFT // 2
    samples = np.zeros(last - first)
    heard = signal[max(first, 0) : max(last, 0)]
    offset = max(-first, 0)
    samples[offset : offset + len(heard)] = heard
    frames = sliding_window_view(samples, N_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * _WINDOW).astype(np.complex64)) ** 2
    # A float64 product: the last bit of a float32 one depends on how many frames there are,
    # and where it decides how a power is rounded to float16, rows would differ visibly.
    # Torch's, because numpy's takes threads that nobody gave it.
    mel = (torch.from_numpy(power).double() @ _FILTERS).float().numpy()
    mel = np.minimum(mel, _FLOAT16_MAX).astype(np.float16).astype(np.float32)
    loudness: Array = np.log10(np.float32(10000) * mel + np.float32(1))
    return loudness


def joined(patches: Array, hop: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Patches with every frame that a patch shares with the one before it kept only once.

    Parameters
    ----------
    patches
        Shape (n, 187, 96); patches of several clips may follow each other.
    hop
        Frames from one patch of a clip to the next, 1 or more.

    Returns
    -------
    Frames of shape (at most 187 n, 96), and the first frame of each patch, shape (n,).
    """
    overlap = max(PATCH - hop, 0)
    pieces = [patches[0]]
    starts = [0]
    total = PATCH
    for previous, patch in pairwise(patches):
        same = np.array_equal(previous[PATCH - overlap :], patch[:overlap])
        known = overlap if same else 0
        starts.append(total - known)
        pieces.append(patch[known:])
        total += PATCH - known
    return np.concatenate(pieces), np.array(starts)


@dataclass(frozen=True, slots=True)
class MusicnnConfig:
    """What musicnn may be asked for.

    Attributes
    ----------
    output
        ``mean_pool`` and ``max_pool`` over the 3 s (753 values), ``penultimate`` (200), or
        ``taggram``, the probabilities of the 50 tags that the weights were trained on.
    model
        ``MSD`` or ``MTT``: the dataset of the weights.
    hop
        Seconds between rows, a multiple of 0.016; the published package's for
        ``input_overlap=1`` by default.

    Raises
    ------
    UsageError
        If `hop` is no whole number of frames.
    """

    output: Output = "mean_pool"
    model: Literal["MSD", "MTT"] = "MSD"
    hop: float = 0.976

    def __post_init__(self) -> None:
        frames = self.hop * SAMPLE_RATE / HOP
        if not (math.isfinite(frames) and frames > 0):
            raise UsageError(f"musicnn.hop={self.hop}: expected a multiple of 0.016 s above 0")
        if self.hop_frames < 1 or abs(frames - self.hop_frames) > 1e-6:
            near = {max(math.floor(frames), 1), math.ceil(frames)}
            seconds = " or ".join(f"{n * HOP / SAMPLE_RATE:.3f}" for n in sorted(near))
            raise UsageError(
                f"musicnn.hop={self.hop}: expected a whole number of frames of 0.016 s, "
                f"found {frames:.3f}; the nearest is {seconds}"
            )

    @property
    def hop_frames(self) -> int:
        """`hop` in frames."""
        return round(self.hop * SAMPLE_RATE / HOP)


class Musicnn(Extractor):
    """Rows of 753, 200 or 50 values, float32, each from 187 frames (3.008 s) of 16 kHz audio.

    Frame j sees the 512 samples around second 0.016 j. Row i sees the frames from ``h i``
    to ``h i + 187``, h = 61 by default: 3.008 s around second ``0.016 (h i + 93)``. The
    first row is centred at 1.488 s and hears everything from the clip's start.

    A clip of n samples has ``1 + n // 256`` frames and
    ``max(1, 1 + (1 + n // 256 - 187) // h)`` rows: frames that fill no patch are left out,
    as in the published package. A clip of less than 2.976 s, where that package has none,
    gives one row, as if zeros followed it.

    The published package stores the penultimate layer of a clip's first patch for all of
    its patches; this one gives every patch its own.
    """

    name = "musicnn"
    Config = MusicnnConfig
    config: MusicnnConfig
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        config: MusicnnConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        self._block = 16 if device == "cpu" else 256  # rows that one thread takes at once
        self.batch_frames = self._block * (torch.get_num_threads() if device == "cpu" else 1)
        self.dim = {"penultimate": 200, "taggram": 50}.get(config.output, 753)
        self.timing = FrameTiming(
            hop_s=config.hop_frames * HOP / SAMPLE_RATE,
            window_s=((PATCH - 1) * HOP + N_FFT) / SAMPLE_RATE,
            first_center_s=(PATCH - 1) / 2 * HOP / SAMPLE_RATE,
        )

    @classmethod
    def weight_names(cls, config: MusicnnConfig) -> tuple[str, ...]:
        """``musicnn-msd`` or ``musicnn-mtt``."""
        return (f"musicnn-{config.model.lower()}",)

    @classmethod
    def trained_on(cls, config: MusicnnConfig) -> str | None:
        """MagnaTagATune, for the MTT model."""
        return "mtat" if config.model == "MTT" else None

    def frames(self, samples: int) -> int:
        """As many patches as fit, 1 at least."""
        frames = 1 + samples // HOP
        return max(1, 1 + (frames - PATCH) // self.config.hop_frames)

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Log-mel patches, shape (stop - start, 187, 96), float32; see `log_mel`."""
        hop = self.config.hop_frames
        frames = log_mel(signal, hop * start, hop * (stop - 1) + PATCH)
        patches: Array = sliding_window_view(frames, PATCH, axis=0)[::hop].transpose(0, 2, 1)
        return patches

    @cached_property
    def _network(self) -> Network:
        with torch.device("meta"):  # the weights come from the file: draw none
            network = Network()
        (name,) = self.weight_names(self.config)
        network.load_state_dict(load_weights(self.weights[name]), assign=True)
        return network.to(self.device).eval()

    def load(self) -> None:
        """Read the weights of the network."""
        self._network  # noqa: B018

    def network(self, inputs: Array) -> Array:
        """The chosen layer's output for patches of shape (n, 187, 96); (n, dim), float32."""
        network = self._network  # loaded here, before several threads ask for it
        device = torch.device(self.device)

        def rows(block: Array) -> Array:
            frames, starts = joined(block, self.config.hop_frames)
            reduced = self.precision == "bfloat16"
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, reduced):
                values: Tensor = network(
                    torch.from_numpy(frames).to(device),
                    torch.from_numpy(starts).to(device),
                    self.config.output,
                )
            return np.asarray(values.cpu())

        blocks = np.split(inputs, range(self._block, len(inputs), self._block))
        with exact():
            return np.concatenate(in_threads(rows, blocks))
