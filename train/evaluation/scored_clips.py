"""Clips with predictions, labels and audio: of a run, of aligned shards, or audio files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import resample
from featreg.datasets.audio.file_or_array import mono_signal
from featreg.datasets.audio.pcm16 import to_pcm16
from featreg.datasets.base import FeatregError
from featreg.datasets.console import progress, warn

from ..data.aligned_set import Clips
from ..data.clip_reader import ClipReader
from ..deploy.classifier import Classifier
from ..deploy.find_audio import AudioFile, Failed
from ..deploy.tag_files import tag_files
from ..experiments.compare import Result
from .metrics import Label, Probability

ReadAudio = Callable[[], npt.NDArray[np.int16]]
"""Function that reads the samples of a clip, of shape (samples,), from -32767 to 32767."""

FILE = "file"
"""Split of an audio file that is not a clip of the dataset."""


@dataclass(frozen=True, slots=True)
class ScoredClips:
    """Clips with predictions.

    Attributes
    ----------
    clip_id
        Ids of the clips, or paths of the files, of shape (n,).
    split
        Split of each clip, or `FILE`, of shape (n,).
    probability
        Shape (n, classes), in [0, 1].
    label, label_mask
        Labels and label mask, each of shape (n, classes), 0 or 1.
    audio
        A function for each clip that reads its audio.
    """

    clip_id: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    probability: Probability
    label: Label
    label_mask: Label
    audio: Sequence[ReadAudio]

    def __len__(self) -> int:
        return len(self.clip_id)

    def take(self, chosen: npt.NDArray[np.int64]) -> ScoredClips:
        """Return the clips with the indices `chosen`, in their order."""
        return ScoredClips(
            self.clip_id[chosen],
            self.split[chosen],
            self.probability[chosen],
            self.label[chosen],
            self.label_mask[chosen],
            [self.audio[clip] for clip in chosen],
        )


def scored(clips: Clips, probability: Probability) -> ScoredClips:
    """Return clips of aligned shards with their predictions.

    Parameters
    ----------
    clips
        The clips.
    probability
        Shape (clips, classes), in [0, 1].
    """
    reader = ClipReader(clips, {})

    def read(clip: int) -> ReadAudio:
        first, last = clips.audio[clip].tolist()
        return lambda: to_pcm16(reader.audio(clip, 0, last - first))

    readers = [read(clip) for clip in range(len(clips))]
    labels = clips.label, clips.label_mask
    return ScoredClips(clips.clip_id, clips.split, probability, *labels, readers)


def scored_test_clips(result: Result, clips: Clips) -> ScoredClips:
    """Return the predictions and labels of the test split that a run has stored.

    Parameters
    ----------
    result
        The run.
    clips
        Clips of the shards, which contain the test clips and their audio.

    Raises
    ------
    FeatregError
        If a file of the run is damaged, or the shards do not contain a clip.
    """
    table, arrays = result.predictions(), result.embeddings()
    place = {name: k for k, name in enumerate(clips.clip_id.tolist())}
    missing = [name for name in table.index if name not in place]
    if missing:
        raise FeatregError(
            f"{result.folder.path}: {len(missing)} of {len(table)} clips in predictions.csv, such "
            f"as {missing[0]}, are not in the aligned shards {clips.paths[0].parent}, from which "
            "their audio is read; extract and align the data of the run again"
        )
    chosen = clips.take(np.array([place[name] for name in table.index]))
    row = {name: k for k, name in enumerate(arrays["clip_id"].tolist())}
    rows = [row[name] for name in table.index]
    chosen = replace(chosen, label=arrays["label"][rows], label_mask=arrays["label_mask"][rows])
    return scored(chosen, table.to_numpy(np.float32))


def scored_files(
    model: Classifier, files: Sequence[AudioFile | Failed]
) -> tuple[ScoredClips, list[Failed]]:
    """Return the predictions of audio files, and the files that failed.

    Parameters
    ----------
    model
        The classifier.
    files
        Files, see `find_audio`. Those that fail are also named in warnings.
    """
    names: list[str] = []
    rows, readers = [], []
    paths = [each.path for each in files if isinstance(each, AudioFile)]
    failed = [each for each in files if isinstance(each, Failed)]
    with progress("predicting", len(paths)) as advance:
        for outcome in tag_files(model, paths, None):
            advance()
            if isinstance(outcome, Failed):
                failed.append(outcome)
                continue
            names.append(str(outcome[0].file))
            rows.append(outcome[0].probability)
            readers.append(_reader(model, outcome[0].file))
    for each in failed:
        warn(each.reason)
    probability = np.array(rows, np.float32).reshape(len(rows), len(model.classes))
    none = np.zeros(probability.shape, np.uint8)
    split = np.full(len(names), FILE)
    return ScoredClips(np.array(names, np.str_), split, probability, none, none, readers), failed


def _reader(model: Classifier, file: Path) -> ReadAudio:
    """Return a function that reads a file as the model receives it."""

    def read() -> npt.NDArray[np.int16]:
        signal, rate = mono_signal(file)
        return to_pcm16(resample(signal, rate, model.sample_rate, model.card.resampler))

    return read


def joined(parts: Sequence[ScoredClips]) -> ScoredClips:
    """Return the clips of all parts, of which there must be at least one."""

    def join(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    names = ("clip_id", "split", "probability", "label", "label_mask")
    audio = [read for part in parts for read in part.audio]
    return ScoredClips(**{name: join(name) for name in names}, audio=audio)
