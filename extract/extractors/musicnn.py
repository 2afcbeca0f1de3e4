"""musicnn: embeddings of a music tagging network, one frame per 3 s of audio.

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
    """Frames `start` to `stop` - 1 of the log-mel spectrogram of a zero-padded signal.

    Frame j is ``log10(10000 m + 1)`` for the 96 mel powers m of the 512 samples around
    sample 256 j (periodic Hann window). As in the published package, m is rounded to float16.

    Returns
    -------
    Spectrogram of shape (stop - start, 96), float32, 0 or above.
    """
    first = HOP * start - N_FFT // 2
    last = HOP * (stop - 1) + N_FFT // 2
    samples = np.zeros(last - first)
    available = signal[max(first, 0) : max(last, 0)]
    offset = max(-first, 0)
    samples[offset : offset + len(available)] = available
    frames = sliding_window_view(samples, N_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * _WINDOW).astype(np.complex64)) ** 2
    # In float64, because the last bit of a float32 product depends on the number of frames, and
    # would visibly change the result if it decides how a power is rounded to float16. With torch,
    # because NumPy's product does not respect the number of threads.
    mel = (torch.from_numpy(power).double() @ _FILTERS).float().numpy()
    mel = np.minimum(mel, _FLOAT16_MAX).astype(np.float16).astype(np.float32)
    loudness: Array = np.log10(np.float32(10000) * mel + np.float32(1))
    return loudness


def joined(patches: Array, hop: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Concatenate patches; frames shared by successive patches are kept only once.

    Parameters
    ----------
    patches
        Patches of shape (n, 187, 96), possibly of several clips in succession.
    hop
        Frames from one patch of a clip to the next, 1 or more.

    Returns
    -------
    Frames of shape (at most 187 n, 96), and the index of the first frame of each patch, shape (n,).
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
    """Settings of `Musicnn`.

    Attributes
    ----------
    output
        ``mean_pool`` or ``max_pool`` over the 3 s (753 dimensions), ``penultimate`` (200), or
        ``taggram``, the probabilities of the 50 tags on which the weights were trained.
    model
        Training dataset of the weights: ``MSD`` or ``MTT``.
    hop
        Seconds between frames, a multiple of 0.016; the default is that of the published package
        for ``input_overlap=1``.

    Raises
    ------
    UsageError
        If `hop` is not a whole number of spectrogram frames.
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
                f"musicnn.hop={self.hop}: expected a whole multiple of 0.016 s, "
                f"found {frames:.3f} times; use {seconds}"
            )

    @property
    def hop_frames(self) -> int:
        """`hop` in spectrogram frames."""
        return round(self.hop * SAMPLE_RATE / HOP)


class Musicnn(Extractor):
    """Frames of 753, 200 or 50 dimensions, float32, one per patch of 3.008 s of 16 kHz audio.

    Spectrogram frame j is computed from the 512 samples around 0.016 j seconds. A patch has 187
    spectrogram frames: patch i begins with spectrogram frame ``h i`` (h = 61 by default), spans
    3.008 s and is centered at ``0.016 (h i + 93)`` seconds. The first one is centered at 1.488 s
    and includes the start of the clip.

    A clip of n samples has ``1 + n // 256`` spectrogram frames and
    ``max(1, 1 + (1 + n // 256 - 187) // h)`` patches: spectrogram frames that do not fill a patch
    are dropped, as in the published package. A clip of less than 2.976 s, for which that package
    has no patch, is padded with zeros to one patch.

    The published package returns the penultimate layer of a clip's first patch for all of its
    patches; this class returns that of each patch.
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
        self._block = 16 if device == "cpu" else 256  # frames per thread
        self.batch_frames = self._block * (torch.get_num_threads() if device == "cpu" else 1)
        self.dim = {"penultimate": 200, "taggram": 50}.get(config.output, 753)
        self.timing = FrameTiming(
            hop_s=config.hop_frames * HOP / SAMPLE_RATE,
            window_s=((PATCH - 1) * HOP + N_FFT) / SAMPLE_RATE,
            first_center_s=(PATCH - 1) / 2 * HOP / SAMPLE_RATE,
        )

    @classmethod
    def weight_names(cls, config: MusicnnConfig) -> tuple[str, ...]:
        """Name of the weights: ``musicnn-msd`` or ``musicnn-mtt``."""
        return (f"musicnn-{config.model.lower()}",)

    @classmethod
    def trained_on(cls, config: MusicnnConfig) -> str | None:
        """MagnaTagATune (``mtat``) for the MTT model, else None."""
        return "mtat" if config.model == "MTT" else None

    def frames(self, samples: int) -> int:
        """Number of whole patches, at least 1."""
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
        with torch.device("meta"):  # the weights are loaded from the file: skip initialization
            network = Network()
        (name,) = self.weight_names(self.config)
        network.load_state_dict(load_weights(self.weights[name]), assign=True)
        return network.to(self.device).eval()

    def load(self) -> None:
        """Read the weights of the network."""
        self._network  # noqa: B018

    def network(self, inputs: Array) -> Array:
        """Output of the selected layer, (n, dim), float32, for patches of shape (n, 187, 96)."""
        network = self._network  # loaded here, before several threads ask for it
        device = torch.device(self.device)

        def compute(block: Array) -> Array:
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
            return np.concatenate(in_threads(compute, blocks))
