"""A trained model as plain Python: audio in, probabilities of its classes out.

::

    from featreg.train import load

    model = load("featreg-work/runs/demo-conreg-musicnn-a1-s0")
    dict(zip(model.classes, model.predict("song.mp3")))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featreg.datasets.audio.decode import SHORTEST_S, decode, resample
from featreg.datasets.audio.levels import PEAK, cancellation, too_loud
from featreg.datasets.base import Clip, FeatregError, Task, UsageError

from ..data.crops import chunk_starts, repeated
from ..evaluation.predict import probabilities
from ..models.base import Tagger
from ..training.build import resolve_device
from ..training.memory import enough_memory
from .model_file import Card, read_model

Array = npt.NDArray[np.float32]

TOGETHER = 16  # pieces that go through the network at once


class Timeline(NamedTuple):
    """Predictions over time.

    Attributes
    ----------
    start_s, end_s
        Shape (n,): the stretch of audio that each prediction heard, in seconds.
    probability
        Shape (n, classes), float32 in [0, 1].
    """

    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    probability: Array


def load(path: str | Path, device: str = "auto") -> Classifier:
    """A model that hears audio alone, ready to use.

    Parameters
    ----------
    path
        A run's folder, or a ``.safetensors`` file of featreg.
    device
        ``cpu``, ``cuda``, or ``auto``: the latter where there is one.

    Raises
    ------
    FeatregError
        If there is no such model, another version wrote it, or it needs features beside
        the audio.
    """
    path = Path(path)
    tagger, card = read_model(path / "model.safetensors" if path.is_dir() else path)
    card.require_audio_alone("predicting")
    return Classifier(tagger, card, resolve_device(device))


class Classifier:
    """A trained model; `load` makes it.

    Audio is a file, of any rate and number of channels, or an array of shape (samples,)
    or (samples, channels) in [-1, 1] with its rate in Hz (None: `sample_rate`). It is
    heard as the shards store it: averaged over channels, at `sample_rate` by the same
    resampler, in 16 bit.
    """

    def __init__(self, tagger: Tagger, card: Card, device: str) -> None:
        self.card = card
        self._tagger, self._device = tagger.to(device), device
        self._row_samples = round(card.resolution_s * card.sample_rate)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities."""
        return self.card.classes

    @property
    def task(self) -> Task:
        """``multi-label`` or ``single-label``."""
        return self.card.task

    @property
    def sample_rate(self) -> int:
        """Rate of the audio that the network hears, in Hz."""
        return self.card.sample_rate

    @property
    def piece_s(self) -> float:
        """Length of the pieces that it judges, in seconds."""
        return self.card.samples / self.card.sample_rate

    def predict(self, audio: str | Path | npt.ArrayLike, rate: int | None = None) -> Array:
        """Probability of every class in the whole of a clip; shape (classes,).

        As in evaluation: the mean over evenly spaced pieces of which the last one ends
        where the clip ends; as many as it takes to leave nothing of a long one unheard.

        Raises
        ------
        FeatregError
            If the audio cannot be decoded, or is no audio.
        """
        signal = self._hear(audio, rate)
        spare = max(0, len(signal) - self.card.samples)
        chunks = max(self.card.chunks, -(-len(signal) // self.card.samples))
        starts, counts = np.unique(
            chunk_starts(spare, self._row_samples, chunks), return_counts=True
        )
        values = self._judge(signal, starts.tolist())
        mean: Array = np.average(values, axis=0, weights=counts).astype(np.float32)
        return mean

    def predict_over_time(
        self, audio: str | Path | npt.ArrayLike, rate: int | None = None, hop_s: float = 1.0
    ) -> Timeline:
        """Probability of every class in pieces that begin every `hop_s` seconds.

        The last piece ends where the clip ends; a clip shorter than a piece is one.

        Raises
        ------
        FeatregError
            If the audio cannot be decoded, or is no audio.
        UsageError
            If `hop_s` is less than a sample.
        """
        self.check_hop(hop_s)
        signal = self._hear(audio, rate)
        spare = max(0, len(signal) - self.card.samples)
        starts = np.rint(np.arange(0, spare + 1, hop_s * self.sample_rate)).astype(int)
        starts = np.unique([*starts[starts <= spare], spare])
        end = np.minimum(starts + self.card.samples, len(signal))
        return Timeline(
            starts / self.sample_rate,
            end / self.sample_rate,
            self._judge(signal, starts.tolist()),
        )

    def check_hop(self, hop_s: float) -> None:
        """See that pieces can begin every `hop_s` seconds.

        Raises
        ------
        UsageError
            If that is less than a sample.
        """
        if not hop_s * self.sample_rate >= 1:  # nor NaN
            raise UsageError(
                f"--hop {hop_s:g}: expected at least one sample, {1 / self.sample_rate:g} s"
            )

    def _hear(self, audio: str | Path | npt.ArrayLike, rate: int | None) -> Array:
        """The signal as a shard would store it; shape (samples,), at `sample_rate`."""
        if isinstance(audio, (str, Path)):
            nothing = np.empty(0, np.uint8)
            signal, rate = decode(Clip(str(audio), Path(audio), "test", nothing, nothing))
        else:
            rate = rate or self.sample_rate
            signal = _checked(audio, rate)
        signal = resample(signal, rate, self.sample_rate, self.card.resampler)
        stored = np.rint(signal * 32767)  # `resample` has clipped it
        heard: Array = stored.astype(np.float32) / np.float32(32767)
        return heard

    def _pieces(self, signal: Array, starts: Sequence[int]) -> Iterator[Tensor]:
        """Batches of shape (up to `TOGETHER`, samples)."""
        samples = self.card.samples
        if len(signal) < samples:
            whole = -(-len(signal) // self._row_samples) * self._row_samples
            signal = repeated(signal, samples, whole)
        for first in range(0, len(starts), TOGETHER):
            some = starts[first : first + TOGETHER]
            batch = np.stack([signal[start : start + samples] for start in some])
            yield torch.from_numpy(batch)

    @torch.inference_mode()
    def _judge(self, signal: Array, starts: Sequence[int]) -> Array:
        """Probabilities of the pieces at `starts`; shape (pieces, classes)."""
        found = []
        with enough_memory(self.card.name, "free some of it, or use another --device"):
            for batch in self._pieces(signal, starts):
                logits = self._tagger(batch.to(self._device)).logits
                found.append(probabilities(logits, self.task).cpu())
        values: Array = torch.cat(found).numpy()
        return values


def _checked(audio: npt.ArrayLike, rate: int) -> Array:
    """An array of audio as one channel of float32."""
    signal: npt.NDArray[Any] = np.asarray(audio)
    if signal.dtype.kind != "f" or signal.ndim not in (1, 2):
        raise FeatregError(
            "audio: expected floats in [-1, 1] of shape (samples,) or (samples, channels), found "
            f"{signal.dtype} of shape {signal.shape}"
        )
    loudest = float(np.abs(signal).max(initial=0.0))
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    signal = signal if signal.ndim == 1 else signal.mean(axis=1)
    if len(signal) < SHORTEST_S * rate:
        raise FeatregError(
            f"audio: expected at least {SHORTEST_S * 1000:.0f} ms, found {len(signal)} samples at "
            f"{rate} Hz"
        )
    if not np.isfinite(signal).all():
        at = int(np.flatnonzero(~np.isfinite(signal))[0])
        raise FeatregError(f"audio: a value is not finite, at sample {at}")
    peak = float(np.abs(signal).max())
    if peak > PEAK:
        raise FeatregError(f"audio: {too_loud(peak)}")
    if channels > 1 and (reason := cancellation(peak, loudest)):
        raise FeatregError(f"audio: {reason}")
    return signal.astype(np.float32)
