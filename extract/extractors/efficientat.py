"""EfficientAT: embeddings of MobileNets trained on AudioSet, one frame per 0.32 s.

References
----------
F. Schmid, K. Koutini, G. Widmer, "Efficient large-scale audio tagging via transformer-to-CNN
knowledge distillation", ICASSP 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from featreg.datasets.shards.timing import FrameTiming

from ..conv.threads import in_threads
from ..weights.load import load_weights
from .base import Array, Extractor, Precision, Signal
from .efficientat_frontend import SAMPLE_RATE, log_mel, spectrogram_frames
from .efficientat_inference import Inference, Output
from .efficientat_network import CLASSES, WIDTHS, Model, Network, channels_of

COLUMN = 32  # spectrogram frames per column of the last feature map: 0.32 s
WINDOW = 1000  # spectrogram frames of a window, as in training: 10 s
WINDOW_HOP = 16 * COLUMN  # from one window to the next: 5.12 s
# Columns at the start of each window except the first that serve only as context.
CONTEXT = 8
# Receptive field of the convolutions for one column, in spectrogram frames.
RECEPTIVE_FIELD = 595

_BLOCK = 8  # windows that go through the network at once


@dataclass(frozen=True, slots=True)
class EfficientATConfig:
    """Settings of `EfficientAT`.

    Attributes
    ----------
    output
        ``frames``: the last feature map averaged over frequency, one frame per 0.32 s.
        ``pooled``: the last feature map averaged over frequency and time (the published clip
        embedding), one frame per window. ``scores``: the probabilities of AudioSet's 527
        classes, one frame per window.
    model
        The published model: mn04 to mn40, where the number is ten times the width.
    window
        ``10s``: windows of 10 s, as in training, so that frames do not depend on the
        length of the file. ``clip``: the whole clip at once, as the published inference
        does; memory and squeeze-and-excitation then depend on the clip's length.
    """

    output: Output = "frames"
    model: Model = "mn10"
    window: Literal["10s", "clip"] = "10s"


@dataclass(eq=False, slots=True)
class Window:
    """A part of a clip that the network processes at once.

    Attributes
    ----------
    signal
        Signal of the clip; None once `values` are computed.
    start, stop
        Range of frames of the clip's spectrogram.
    values
        Output of the network, shape (columns, dim); None until it is computed. It is kept because
        a window may begin in one batch and end in the next.
    """

    signal: Signal | None
    start: int
    stop: int
    values: Array | None = None


class EfficientAT(Extractor):
    """Frames of the last feature map of `Network`, its mean, or the scores of AudioSet's classes.

    A clip of n samples at 32 kHz has ``S = 1 + (n - 2) // 320`` spectrogram frames, 10 ms
    apart. Windows of 1,000 of them (10 s, as in training) start every 512 (5.12 s); the last
    one ends with the clip, so that there are ``W = 1 + ceil(max(0, S - 1000) / 512)``.

    With ``output=frames`` a clip has ``ceil(S / 32)`` frames. Frame i is centered at exactly
    0.32 i seconds, because every convolution of the network is centered. The receptive field of
    the convolutions is 5.965 s, while squeeze-and-excitation averages over the whole window. Each
    window contributes its columns 8 to 23, which are at least 2.56 s away from its ends; the first
    window also contributes the columns before them, and the last one those after them. Frame i is
    column ``i - 16 w`` of window ``w = min(max(0, (i - 8) // 16), W - 1)``. Between the first and
    the last window, a frame depends on the audio from at most 7.4 s before to 7.5 s after its
    center. Cutting the end of a file, or a multiple of 5.12 s from its start, changes no frame
    that is more than 10 s away from the cut. A clip of up to 10 s is one window of its own
    length, as in the published code.

    With ``output=pooled`` or ``scores`` a clip has W frames, one per window.

    With ``window=clip`` the whole clip is one window for all outputs.

    Clips of less than 514 samples, for which the published code fails, are padded with zeros.
    """

    name = "efficientat"
    Config = EfficientATConfig
    config: EfficientATConfig
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        config: EfficientATConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        self._block = _BLOCK if device == "cpu" else 64
        windows = 2 * self._block * (torch.get_num_threads() if device == "cpu" else 1)
        whole = WINDOW / 100
        if config.output == "frames":
            self.batch_frames = windows * -(-WINDOW // COLUMN)
            self.timing = FrameTiming(COLUMN / 100, RECEPTIVE_FIELD / 100 + 0.015, 0.0)
        else:
            self.batch_frames = windows
            self.timing = FrameTiming(WINDOW_HOP / 100, whole, whole / 2)
        self.dim = CLASSES if config.output == "scores" else channels_of(WIDTHS[config.model])
        # The last window of the previous call of `inputs`, and where the next call continues.
        self._open: tuple[Signal, int, int, Window] | None = None

    @classmethod
    def weight_names(cls, config: EfficientATConfig) -> tuple[str, ...]:
        """Name of the weights, such as ``efficientat-mn10``."""
        return (f"efficientat-{config.model}",)

    def frames(self, samples: int) -> int:
        """Number of frames: one per 0.32 s, rounded up, or one per window."""
        spectrogram = spectrogram_frames(samples)
        if self.config.output == "frames":
            return -(-spectrogram // COLUMN)
        return self._windows(spectrogram)

    def _windows(self, spectrogram: int) -> int:
        if self.config.window == "clip":
            return 1
        return 1 + -(-max(0, spectrogram - WINDOW) // WINDOW_HOP)

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """`Window` and column of each frame; array of tuples of shape (stop - start,)."""
        spectrogram = spectrogram_frames(len(signal))
        last = self._windows(spectrogram) - 1
        length = spectrogram if self.config.window == "clip" else WINDOW
        columns = WINDOW_HOP // COLUMN
        windows: dict[int, Window] = {}
        if start and self._open and self._open[0] is signal and self._open[1] == start:
            windows[self._open[2]] = self._open[3]
        found = np.empty(stop - start, object)
        for i in range(start, stop):
            place, column = i, 0
            if self.config.output == "frames":
                place = min(max(0, (i - CONTEXT) // columns), last)
                column = i - columns * place
            if place not in windows:
                first = WINDOW_HOP * place
                windows[place] = Window(signal, first, min(first + length, spectrogram))
            found[i - start] = (windows[place], column)
        whole = stop == self.frames(len(signal))
        self._open = None if whole else (signal, stop, place, windows[place])
        return found

    def load(self) -> None:
        """Read the weights of the network."""
        self._inference  # noqa: B018

    @cached_property
    def _inference(self) -> Inference:
        with torch.device("meta"):  # the weights are loaded from the file: skip initialization
            network = Network(WIDTHS[self.config.model])
        (name,) = self.weight_names(self.config)
        # Not strict: our files do not contain the batch norms' counts of training batches.
        network.load_state_dict(load_weights(self.weights[name]), strict=False, assign=True)
        return Inference(network.eval(), self.device, self.precision)

    def network(self, inputs: Array) -> Array:
        """Frames of shape (n, dim), float32, from n windows and columns."""
        inference = self._inference  # loaded here, before several threads ask for it
        lengths: dict[int, list[Window]] = {}
        for window in dict.fromkeys(window for window, _ in inputs):
            if window.values is None:
                lengths.setdefault(window.stop - window.start, []).append(window)
        blocks = [
            windows[first : first + self._block]
            for windows in lengths.values()
            for first in range(0, len(windows), self._block)
        ]
        in_threads(lambda windows: self._compute(inference, windows), blocks)
        values: Array = np.stack([window.values[column] for window, column in inputs])
        return values

    def _compute(self, inference: Inference, windows: Sequence[Window]) -> None:
        """Compute the values of windows of equal length."""
        mel = [
            log_mel(window.signal, window.start, window.stop)
            for window in windows
            if window.signal is not None
        ]
        values = inference(mel, self.config.output).cpu().numpy()
        for window, own in zip(windows, values, strict=True):
            window.values, window.signal = own, None
