"""A trained classifier in Python: from audio to class probabilities and embeddings.

::

    import featreg

    model = featreg.load_model("featreg-work/runs/demo-conreg-musicnn-a1-s0")
    model.predict("song.mp3")  # {"piano": 0.91, ...}
    embeddings, times = model.embed(samples, 44100)
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch

from featreg.datasets.audio.file_or_array import FileOrArray, mono_signal
from featreg.datasets.base import Task, UsageError
from featreg.datasets.console import warn

from ..data.crops import chunk_starts
from ..evaluation.predict import probabilities
from ..models.base import Tagger
from ..training.build import resolve_device
from .chunk_network import ChunkNetwork, Input
from .compute_features import FeatureInput, Weights
from .model_file import Card, read_model
from .recording import Recording, Wanted, read_recording, recording_of

Array = npt.NDArray[np.float32]
Embeddings = tuple[Array, npt.NDArray[np.float64]]


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


def load_model(
    path: str | PathLike[str], device: str = "cpu", *, weights: Weights | None = None
) -> Classifier:
    """Load a trained classifier.

    A classifier that needs features (a probe, or one trained with ``--fusion``) computes them
    from the audio, with the extractors, settings and alignment of its training data.

    Parameters
    ----------
    path
        A run folder, or a ``.safetensors`` file that ``train export`` wrote.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU if available.
    weights
        Files of its extractors, by the name of the feature, to use instead of those of this
        machine, such as ``{"vggish": "vggish.pth"}``.

    Raises
    ------
    FeatregError
        If there is no such model, it was written by another version, or one of its extractors is
        not available or differs from that of the training data.
    UsageError
        If the model has no feature of a name in `weights`.
    """
    path = Path(path)
    tagger, card = read_model(path / "model.safetensors" if path.is_dir() else path)
    return Classifier(tagger, card, resolve_device(device), weights or {})


class Classifier:
    """A trained classifier. `load_model` makes it.

    Its methods take the path of an audio file, or an array of shape (samples,) or
    (samples, channels), floats nominally in [-1, 1] or int16 or int32, with its sample rate in
    Hz. The audio is processed as for the shards of the training data: channels are averaged, and
    the signal is resampled to `sample_rate` and rounded to 16 bit. They raise `UsageError` if
    an array has no sample rate or is not audio, and `ClipError` if a file cannot be decoded.

    Attributes
    ----------
    card
        Description of the model.
    device
        ``cpu`` or ``cuda``.
    wanted
        The signals that the model needs.
    """

    def __init__(
        self, tagger: Tagger, card: Card, device: str, weights: Weights | None = None
    ) -> None:
        self.card = card
        self._network, self.device = ChunkNetwork(tagger, card, device), device
        self._features = FeatureInput(card, weights or {}, device) if card.features else None
        if self._features is None and weights:
            raise UsageError(
                f"--weights {next(iter(weights))}: {card.name} needs only audio, so it has no "
                "extractors"
            )
        self.wanted = Wanted(
            card.sample_rate,
            card.resampler,
            () if self._features is None else self._features.signals,
        )

    def __repr__(self) -> str:
        return (
            f"<Classifier {self.card.name}: {len(self.classes)} classes, {self.task}, "
            f"{self.sample_rate} Hz, on {self.device}>"
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
        clip, and a long clip has as many as are needed to cover it. A probe pools the features of
        the whole clip.
        """
        return self.mean_probability(self.prepare(audio, sample_rate))

    def mean_probability(self, clip: Input) -> Array:
        """Predict the probability of every class in a clip; see `probabilities`."""
        if self.card.fusion == "probe":
            assert clip.frames is not None
            output = self._network.run(None, torch.from_numpy(clip.frames[None]))
            whole: Array = probabilities(output.logits, self.task)[0].numpy()
            return whole
        length, samples = len(clip.audio), self.card.samples
        chunks = max(self.card.chunks, -(-length // samples))
        spare = max(0, length - samples)
        starts, counts = np.unique(
            chunk_starts(spare, self.card.frame_samples, chunks), return_counts=True
        )
        values = self._probabilities(clip, starts.tolist())
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
            return [self._embed(self.prepare(each, sample_rate)) for each in audio]
        return self._embed(self.prepare(audio, sample_rate))

    def _embed(self, clip: Input) -> Embeddings:
        spare = max(0, len(clip.audio) - self.card.samples)
        starts = sorted({*range(0, spare + 1, self.card.samples), spare})
        parts = [output.embedding for output in self._network.outputs(clip, starts)]
        embedding = torch.cat(parts).numpy()
        shares = (np.arange(embedding.shape[1]) + 0.5) / embedding.shape[1]
        times = (np.array(starts)[:, None] + self.card.samples * shares) / self.sample_rate
        # The last chunk may overlap the one before: keep its frames after those of that one.
        kept = np.ones(times.shape, bool)
        kept[-1] = times[-1] > (times[-2, -1] if len(starts) > 1 else 0)
        # A clip shorter than a chunk was repeated: drop frames beyond its end.
        length_s = len(clip.audio) / self.sample_rate
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
        return self.over_time(self.prepare(audio, sample_rate), hop_s)

    def over_time(self, clip: Input, hop_s: float) -> Timeline:
        """Predict chunks that start every `hop_s` seconds; see `predict_over_time`."""
        spare = max(0, len(clip.audio) - self.card.samples)
        starts = np.rint(np.arange(0, spare + 1, hop_s * self.sample_rate)).astype(int)
        starts = np.unique([*starts[starts <= spare], spare])
        end = np.minimum(starts + self.card.samples, len(clip.audio))
        return Timeline(
            starts / self.sample_rate,
            end / self.sample_rate,
            self._probabilities(clip, starts.tolist()),
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

    def prepare(self, audio: FileOrArray, sample_rate: int | None) -> Input:
        """Read audio and compute the features that the model needs."""
        if not isinstance(audio, (str, PathLike)):
            return self.input_of(recording_of(*mono_signal(audio, sample_rate), self.wanted))
        recording = read_recording(Path(audio), self.wanted)
        if not recording.audio.any():
            warn(f"{audio}: all samples are zero; the model's output is that of silence")
        return self.input_of(recording)

    def input_of(self, recording: Recording) -> Input:
        """Return the network's input for a recording, with the features that the model needs."""
        if self._features is None:
            return Input(recording.audio, None)
        with self._network.enough_memory():
            return Input(recording.audio, self._features.frames(recording))

    def _probabilities(self, clip: Input, starts: Sequence[int]) -> Array:
        """Probabilities of the chunks at `starts`; shape (chunks, classes)."""
        logits = torch.cat([output.logits for output in self._network.outputs(clip, starts)])
        values: Array = probabilities(logits, self.task).numpy()
        return values
