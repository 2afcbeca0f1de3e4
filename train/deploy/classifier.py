"""A trained classifier in Python: from audio to class probabilities and embeddings.

::

    import featreg

    model = featreg.load_model("featreg-work/runs/demo-conreg-musicnn-a1-s0")
    model.predict("song.mp3")  # {"piano": 0.91, ...}
    embeddings, times = model.embed(samples, 44100)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featreg.datasets.audio.decode import resample
from featreg.datasets.audio.file_or_array import FileOrArray, mono_signal
from featreg.datasets.audio.pcm16 import from_pcm16, to_pcm16
from featreg.datasets.base import FeatregError, Task, UsageError
from featreg.datasets.console import warn

from ..data.crops import chunk_starts, repeated
from ..evaluation.predict import probabilities
from ..models.base import Output, Tagger
from ..training.build import resolve_device
from ..training.memory import enough_memory
from .model_file import Card, read_model

Array = npt.NDArray[np.float32]
Embeddings = tuple[Array, npt.NDArray[np.float64]]

CHUNKS_PER_BATCH = 16
"""Number of chunks that the network processes at once."""

LONGEST_S = 12 * 3600.0
"""Longest audio, in seconds. It is in memory as a whole: 12 h at 16 kHz take 2.8 GB."""


class Timeline(NamedTuple):
    """Predictions over time.

    Attributes
    ----------
    start_s, end_s
        Shape (n,): start and end of each chunk, in seconds.
    probability
        Shape (n, classes), float32 in [0, 1].
    """

    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    probability: Array


def load_model(path: str | PathLike[str], device: str = "cpu") -> Classifier:
    """Load a trained classifier that needs only audio.

    Parameters
    ----------
    path
        A run folder, or a ``.safetensors`` file that ``train export`` wrote.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU if available.

    Raises
    ------
    FeatregError
        If there is no such model, it was written by another version, or it needs features in
        addition to the audio.
    """
    path = Path(path)
    tagger, card = read_model(path / "model.safetensors" if path.is_dir() else path)
    card.require_audio_only("predicting")
    return Classifier(tagger, card, resolve_device(device))


class Classifier:
    """A trained classifier. `load_model` makes it.

    Its methods take the path of an audio file, or an array of shape (samples,) or
    (samples, channels), floats nominally in [-1, 1] or int16 or int32, with its sample rate in
    Hz. The audio is processed as for the shards of the training data: channels are averaged, and
    the signal is resampled to `sample_rate` and rounded to 16 bit. They raise `UsageError` if
    an array has no sample rate or is not audio, and `ClipError` if a file cannot be decoded.
    """

    def __init__(self, tagger: Tagger, card: Card, device: str) -> None:
        self.card = card
        self._tagger, self._device = tagger.to(device), device
        self._frame_samples = round(card.resolution_s * card.sample_rate)

    def __repr__(self) -> str:
        return (
            f"<Classifier {self.card.name}: {len(self.classes)} classes, {self.task}, "
            f"{self.sample_rate} Hz, on {self._device}>"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.card.classes

    @property
    def task(self) -> Task:
        """``multi-label`` or ``single-label``."""
        return self.card.task

    @property
    def sample_rate(self) -> int:
        """Rate to which audio is resampled, in Hz."""
        return self.card.sample_rate

    @property
    def chunk_s(self) -> float:
        """Length of the chunks that the network processes, in seconds."""
        return self.card.samples / self.card.sample_rate

    @overload
    def predict(
        self, audio: list[Any], sample_rate: int | None = None
    ) -> list[dict[str, float]]: ...

    @overload
    def predict(self, audio: FileOrArray, sample_rate: int | None = None) -> dict[str, float]: ...

    def predict(
        self, audio: FileOrArray | list[Any], sample_rate: int | None = None
    ) -> dict[str, float] | list[dict[str, float]]:
        """Predict the probability of every class in a clip, or in each clip of a list.

        Parameters
        ----------
        audio
            A file, an array, or a list of either; see the class.
        sample_rate
            Rate of the arrays in Hz; not used for files.

        Returns
        -------
        Probabilities by class name, in the order of `classes`; a list of them for a list.
        """
        if isinstance(audio, list):
            return [self._named(self.probabilities(each, sample_rate)) for each in audio]
        return self._named(self.probabilities(audio, sample_rate))

    def _named(self, values: Array) -> dict[str, float]:
        return dict(zip(self.classes, values.tolist(), strict=True))

    def probabilities(self, audio: FileOrArray, sample_rate: int | None = None) -> Array:
        """Predict the probability of every class in a clip; shape (classes,), float32.

        The mean over evenly spaced chunks, as in evaluation; the last one ends at the end of the
        clip, and a long clip has as many as are needed to cover it.
        """
        signal = self._signal(audio, sample_rate)
        spare = max(0, len(signal) - self.card.samples)
        chunks = max(self.card.chunks, -(-len(signal) // self.card.samples))
        starts, counts = np.unique(
            chunk_starts(spare, self._frame_samples, chunks), return_counts=True
        )
        values = self._probabilities(signal, starts.tolist())
        mean: Array = np.average(values, axis=0, weights=counts).astype(np.float32)
        return mean

    @overload
    def embed(self, audio: list[Any], sample_rate: int | None = None) -> list[Embeddings]: ...

    @overload
    def embed(self, audio: FileOrArray, sample_rate: int | None = None) -> Embeddings: ...

    def embed(
        self, audio: FileOrArray | list[Any], sample_rate: int | None = None
    ) -> Embeddings | list[Embeddings]:
        """Compute the embedding of a clip over time, or of each clip of a list.

        The clip is divided into consecutive chunks; the last one ends at the end of the clip. The
        frames of a chunk divide it equally.

        Parameters
        ----------
        audio
            A file, an array, or a list of either; see the class.
        sample_rate
            Rate of the arrays in Hz; not used for files.

        Returns
        -------
        embeddings
            Shape (frames, B_E), float32.
        times
            Shape (frames,), float64, increasing: frame centers in seconds.

        A list of clips gives a list of pairs.
        """
        if isinstance(audio, list):
            return [self._embed(self._signal(each, sample_rate)) for each in audio]
        return self._embed(self._signal(audio, sample_rate))

    def _embed(self, signal: Array) -> Embeddings:
        spare = max(0, len(signal) - self.card.samples)
        starts = sorted({*range(0, spare + 1, self.card.samples), spare})
        embedding = self._outputs(signal, starts).embedding.numpy()
        shares = (np.arange(embedding.shape[1]) + 0.5) / embedding.shape[1]
        times = (np.array(starts)[:, None] + self.card.samples * shares) / self.sample_rate
        # The last chunk may overlap the one before: keep its frames after those of that one.
        kept = np.ones(times.shape, bool)
        kept[-1] = times[-1] > (times[-2, -1] if len(starts) > 1 else 0)
        # A clip shorter than a chunk was repeated: drop frames beyond its end.
        length_s = len(signal) / self.sample_rate
        kept &= times < length_s
        if not kept.any():
            kept[0, 0], times[0, 0] = True, length_s / 2
        return embedding[kept], times[kept]

    def predict_over_time(
        self, audio: FileOrArray, sample_rate: int | None = None, hop_s: float = 1.0
    ) -> Timeline:
        """Predict the probability of every class in chunks that start every `hop_s` seconds.

        The last chunk ends at the end of the clip; a shorter clip is one chunk.

        Raises
        ------
        UsageError
            If `hop_s` is less than a sample, or as for the class.
        ClipError
            If a file cannot be decoded.
        """
        self.check_hop(hop_s)
        signal = self._signal(audio, sample_rate)
        spare = max(0, len(signal) - self.card.samples)
        starts = np.rint(np.arange(0, spare + 1, hop_s * self.sample_rate)).astype(int)
        starts = np.unique([*starts[starts <= spare], spare])
        end = np.minimum(starts + self.card.samples, len(signal))
        return Timeline(
            starts / self.sample_rate,
            end / self.sample_rate,
            self._probabilities(signal, starts.tolist()),
        )

    def check_hop(self, hop_s: float) -> None:
        """Check that chunks can start every `hop_s` seconds.

        Raises
        ------
        UsageError
            If `hop_s` is less than a sample.
        """
        if not hop_s * self.sample_rate >= 1:  # nor NaN
            raise UsageError(
                f"--hop {hop_s:g}: expected at least one sample, {1 / self.sample_rate:g} s"
            )

    def _signal(self, audio: FileOrArray, sample_rate: int | None) -> Array:
        """The signal as a shard would store it; shape (samples,), at `sample_rate`."""
        signal, rate = mono_signal(audio, sample_rate)
        if len(signal) > LONGEST_S * rate:
            raise FeatregError(
                f"{len(signal):,} samples at {rate} Hz are {len(signal) / rate / 3600:,.1f} h of "
                f"audio, expected at most {LONGEST_S / 3600:.0f} h; split it, or correct the rate"
            )
        stored = to_pcm16(resample(signal, rate, self.sample_rate, self.card.resampler))
        if isinstance(audio, (str, PathLike)) and not stored.any():
            warn(f"{audio}: all samples are zero; the model's output is that of silence")
        return from_pcm16(stored)

    def _chunks(self, signal: Array, starts: Sequence[int]) -> Iterator[Tensor]:
        """Batches of shape (up to `CHUNKS_PER_BATCH`, samples)."""
        samples = self.card.samples
        if len(signal) < samples:
            whole = -(-len(signal) // self._frame_samples) * self._frame_samples
            signal = repeated(signal, samples, whole)
        for first in range(0, len(starts), CHUNKS_PER_BATCH):
            some = starts[first : first + CHUNKS_PER_BATCH]
            batch = np.stack([signal[start : start + samples] for start in some])
            yield torch.from_numpy(batch)

    def _probabilities(self, signal: Array, starts: Sequence[int]) -> Array:
        """Probabilities of the chunks at `starts`; shape (chunks, classes)."""
        values: Array = probabilities(self._outputs(signal, starts).logits, self.task).numpy()
        return values

    @torch.inference_mode()
    def _outputs(self, signal: Array, starts: Sequence[int]) -> Output:
        """Logits and embeddings of the chunks at `starts`, on the CPU."""
        found = []
        with enough_memory(self.card.name, "free some of it, or use another --device"):
            for batch in self._chunks(signal, starts):
                output = self._tagger(batch.to(self._device))
                found.append([part.float().cpu() for part in output])
        outputs = Output(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        if not all(torch.isfinite(part).all() for part in outputs):
            raise FeatregError(
                f"{self.card.name}: the network's output is not finite; its weights are damaged, "
                "or its training diverged: use another run"
            )
        return outputs
