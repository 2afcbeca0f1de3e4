"""Clips of a run to listen to: its mistakes, its least certain clips, and clips to label next.

The predictions of the test split are those in ``predictions.csv``. Clips of other splits and
clips without labels are predicted from the aligned shards.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import FeatregError, Task
from featreg.datasets.console import warn

from ..data.aligned_set import Clips
from ..data.folds import open_set
from ..deploy.classifier import load_model
from ..deploy.find_audio import Failed, find_audio
from ..deploy.model_file import read_model
from ..experiments.compare import Result
from ..training.run_dir import RunDir
from .by_class import UNCALIBRATED
from .evaluate_run import check_shards, predict_clips
from .metrics import Label
from .rank_clips import (
    Ranked,
    confidence,
    decisions,
    false_negatives,
    false_positives,
    least_certain,
    uncertainty,
)
from .scored_clips import ScoredClips, joined, scored, scored_files, scored_test_clips

Key = tuple[str, str]
"""Split and id of a clip, which together are unique."""


@dataclass(frozen=True, slots=True)
class ClipList:
    """The first clips of a ranking.

    Attributes
    ----------
    kind
        ``mistake`` (single-label), ``false positive``, ``false negative`` (multi-label),
        ``uncertain`` or ``to label``.
    clips
        The clips, the highest score first.
    predicted
        Predicted classes, of shape (clips, classes), 0 or 1.
    score
        Scores by which the clips are ranked, of shape (clips,), in [0, 1].
    classes
        Index of the class that each score is about, of shape (clips,); -1 for all classes.
    found
        Number of clips in the ranking.
    among
        Number of clips that were considered.
    """

    kind: str
    clips: ScoredClips
    predicted: Label
    score: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    found: int
    among: int

    @property
    def keys(self) -> list[Key]:
        """Return the split and id of each clip."""
        return list(zip(self.clips.split.tolist(), self.clips.clip_id.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class RunErrors:
    """All lists of a run.

    Attributes
    ----------
    run, dataset, split
        Names of the run, its dataset, and the split of the labelled clips.
    classes, thresholds
        Class names and, in a multi-label task, the threshold of each.
    rate
        Sample rate of the audio, in Hz.
    lists
        The lists.
    failed
        Files without predictions.
    """

    run: str
    dataset: str
    split: str
    classes: Sequence[str]
    thresholds: Sequence[float]
    rate: int
    lists: Sequence[ClipList]
    failed: Sequence[Failed] = ()

    def names(self, chosen: Label) -> list[str]:
        """Return the names of the classes with 1 in `chosen`, of shape (classes,)."""
        return [name for name, one in zip(self.classes, chosen, strict=True) if one]


def find_errors(
    run: RunDir,
    work: Path,
    split: str = "test",
    files: Sequence[Path] = (),
    top: int = 10,
    device: str = "cpu",
    workers: int = 0,
) -> RunErrors:
    """Rank the clips of a split, and the clips without labels together with files.

    Parameters
    ----------
    run
        A finished run with a classifier.
    work
        The working folder.
    split
        Split of the labelled clips: ``train``, ``valid`` or ``test``.
    files
        Audio files without labels, and folders of them.
    top
        Maximum number of clips in a list.
    device, workers
        As in `evaluate_run`.

    Raises
    ------
    FeatregError
        If a file of the run or a shard is missing or damaged, the shards do not contain a clip or
        do not match the model, or the features of files cannot be computed.
    """
    result = Result(run)
    data = result.about["data"]
    shards = open_set(work, result.config)
    if shards.fingerprint != data["fingerprint"]:
        warn(f"{shards.folder}: the shards have changed since {run.name} was trained")

    def predict(clips: Clips) -> ScoredClips:
        tagger, card = read_model(run.path / "model.safetensors")
        check_shards(card, shards, data["mode"])
        found = predict_clips(run, tagger, card, shards, clips, device, workers)
        return scored(clips, found.probability)

    if split == "test":
        labelled = scored_test_clips(result, shards.clips)
    else:
        clips = shards.split(split)
        clips = clips.take(np.any(clips.label_mask, axis=1))
        if not len(clips):
            raise FeatregError(f"{shards.folder}: no clips with labels in the split {split!r}")
        labelled = predict(clips)
    rest = shards.clips.take(~np.any(shards.clips.label_mask, axis=1))
    unlabelled = [predict(rest)] if len(rest) else []
    failed: list[Failed] = []
    if files:
        part, failed = scored_files(
            load_model(run.path, device), list(find_audio(files, sys.stdin.buffer))
        )
        unlabelled += [part] if len(part) else []
    task, classes = cast(Task, data["task"]), data["classes"]
    stored = result.report.get("thresholds", {})
    thresholds = [stored.get(name, UNCALIBRATED) for name in classes]
    ranking = _Ranking(task, thresholds, top)
    lists = [*ranking.mistakes(labelled), ranking.uncertain("uncertain", labelled)]
    if unlabelled:
        lists.append(ranking.uncertain("to label", joined(unlabelled)))
    return RunErrors(
        run=run.name,
        dataset=data["dataset"],
        split=split,
        classes=classes,
        thresholds=thresholds if task == "multi-label" else (),
        rate=shards.header.audio_rate,
        lists=lists,
        failed=failed,
    )


@dataclass(frozen=True, slots=True)
class _Ranking:
    task: Task
    thresholds: Sequence[float]
    top: int

    def mistakes(self, clips: ScoredClips) -> list[ClipList]:
        """Return the wrong decisions, by kind."""
        sure = confidence(clips.probability, self.task, self.thresholds)
        arrays = clips.clip_id, clips.label, clips.label_mask, self._predicted(clips), sure
        if self.task == "single-label":
            return [self._first("mistake", clips, false_positives(*arrays))]
        return [
            self._first("false positive", clips, false_positives(*arrays)),
            self._first("false negative", clips, false_negatives(*arrays)),
        ]

    def uncertain(self, kind: str, clips: ScoredClips) -> ClipList:
        """Return the least certain clips."""
        known = clips.label_mask.any(axis=1, keepdims=True)
        mask = np.where(known, clips.label_mask, 1)  # all classes of a clip without labels
        values = uncertainty(clips.probability, self.task, mask)
        return self._first(kind, clips, least_certain(clips.clip_id, values))

    def _predicted(self, clips: ScoredClips) -> Label:
        return decisions(clips.probability, self.task, self.thresholds).astype(np.uint8)

    def _first(self, kind: str, clips: ScoredClips, ranked: Ranked) -> ClipList:
        chosen = clips.take(ranked.clip[: self.top])
        score, classes = ranked.score[: self.top], ranked.classes[: self.top]
        found, among = len(ranked.clip), len(clips)
        return ClipList(kind, chosen, self._predicted(chosen), score, classes, found, among)
