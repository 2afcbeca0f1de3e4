"""EfficientAT: what MobileNets trained on AudioSet make of audio, a frame for each 0.32 s.

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

COLUMN = 32  # spectrogram frames from one column of the last map to the next: 0.32 s
WINDOW = 1000  # spectrogram frames of a window, as in training: 10 s
WINDOW_HOP = 16 * COLUMN  # from one window to the next: 5.12 s
# The first column that a window gives, but for the first window: so many lie before it.
CONTEXT = 8
# Spectrogram frames that the convolutions before one column see.
RECEPTIVE_FIELD = 595

_BLOCK = 8  # windows that go through the network at once


@dataclass(frozen=True, slots=True)
class EfficientATConfig:
    """Settings of `EfficientAT`.

    Attributes
    ----------
    output
        ``frames``: the last feature map averaged over frequency, a frame for each 0.32 s.
        ``pooled``: that map averaged over frequency and time, one frame per window: the
        published clip embedding. ``scores``: the probabilities of AudioSet's 527 classes,
        one frame per window.
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
    """A part of a clip that goes through the network at once.

    Attributes
    ----------
    signal
        The clip's signal; None once `values` are there.
    start, stop
        The frames of the clip's spectrogram that the window spans.
    values
        What the network gives, shape (columns, dim), once it is computed: a window may
        begin in one batch and end in the next.
    """

    signal: Signal | None
    start: int
    stop: int
    values: Array | None = None


class EfficientAT(Extractor):
    """Frames of `Network`'s last feature map, of its mean, or of AudioSet's classes.

    A clip of n samples at 32 kHz has ``S = 1 + (n - 2) // 320`` spectrogram frames, 10 ms
    apart. Windows of 1,000 of them (10 s, as in training) start every 512 (5.12 s); the last
    one ends with the clip, so that there are ``W = 1 + ceil(max(0, S - 1000) / 512)``.

    With ``output=frames`` a clip has ``ceil(S / 32)`` frames. Frame i is centred at exactly
    0.32 i seconds, because every convolution of the network is centred. The convolutions see
    5.965 s around it, while squeeze-and-excitation takes means over the whole window. Each
    window gives its columns 8 to 23, 2.56 s or more from either end, the first window also
    those before and the last also those after them: frame i is column ``i - 16 w`` of window
    ``w = min(max(0, (i - 8) // 16), W - 1)``. Between the first and the last window, a frame
    depends on the audio from at most 7.4 s before to 7.5 s after it. What is cut from the end of
    a file, or whole multiples of 5.12 s from its beginning, changes no frame more than 10 s
    away from the cut. A clip of up to 10 s is one window of its own length, as in the published
    code.

    With ``output=pooled`` or ``scores`` a clip has W frames, one for each window.

    With ``window=clip`` the whole clip is one window for all outputs.

    A clip of less than 514 samples, for which the published code fails, is followed by zeros.
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
        # The window that the last call of `inputs` ended in, and where the next one goes on.
        self._open: tuple[Signal, int, int, Window] | None = None

    @classmethod
    def weight_names(cls, config: EfficientATConfig) -> tuple[str, ...]:
        """``efficientat-mn10`` and the like."""
        return (f"efficientat-{config.model}",)

    def frames(self, samples: int) -> int:
        """One for each 0.32 s begun, or one for each window."""
        spectrogram = spectrogram_frames(samples)
        if self.config.output == "frames":
            return -(-spectrogram // COLUMN)
        return self._windows(spectrogram)

    def _windows(self, spectrogram: int) -> int:
        if self.config.window == "clip":
            return 1
        return 1 + -(-max(0, spectrogram - WINDOW) // WINDOW_HOP)

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """For each frame its `Window` and its place there, shape (stop - start,), objects."""
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
        with torch.device("meta"):  # the weights come from the file: draw none
            network = Network(WIDTHS[self.config.model])
        (name,) = self.weight_names(self.config)
        # Batch norms count the batches of training; no file of ours does, so not all is there.
        network.load_state_dict(load_weights(self.weights[name]), strict=False, assign=True)
        return Inference(network.eval(), self.device, self.precision)

    def network(self, inputs: Array) -> Array:
        """Values of shape (n, dim), float32, from n windows and places."""
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
        """Fill in the values of windows of one length."""
        mel = [
            log_mel(window.signal, window.start, window.stop)
            for window in windows
            if window.signal is not None
        ]
        values = inference(mel, self.config.output).cpu().numpy()
        for window, own in zip(windows, values, strict=True):
            window.values, window.signal = own, None
