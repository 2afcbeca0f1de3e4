"""The working folder: locations of its files, and reading and writing of the clip list.

::

    WORK/DATASET/dataset.json              task, classes, notes, and the extracted features
    WORK/DATASET/clips.csv                 clip_id, path, split, (fold,) start_s, duration_s,
                                           labels...
    WORK/DATASET/native/FEATURE/00000.h5   one feature on its own time grid
    WORK/DATASET/aligned/NAME/00000.h5     features, labels and audio, on one time grid
    WORK/DATASET/failures.csv              clip_id, stage, reason
    WORK/runs/RUN/                         config, metrics, checkpoint, predictions
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..base import SPLITS, Clip, Dataset, FeatregError, UsageError
from ..locks import exclusive
from .atomic_file import atomic_path, remove_temporaries
from .csv_table import read_csv, write_csv

_FIXED = ("clip_id", "path", "split", "fold", "start_s", "duration_s")

Limits = Mapping[str, int | None]
"""For each requested split, the number of its first clips that were requested; None for all."""


@dataclass(frozen=True, slots=True)
class DatasetDir:
    """One dataset's folder in the working folder."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.path.absolute().name

    @property
    def clips_csv(self) -> Path:
        """The clip list."""
        return self.path / "clips.csv"

    @property
    def dataset_json(self) -> Path:
        """Task, classes and notes of the dataset."""
        return self.path / "dataset.json"

    @property
    def failures_csv(self) -> Path:
        """List of all clips without frames, with the reasons."""
        return self.path / "failures.csv"

    def native(self, feature: str) -> Path:
        """Folder of a feature's native shards."""
        return self.path / "native" / feature

    def aligned(self, name: str) -> Path:
        """Folder of the aligned shards called `name`."""
        return self.path / "aligned" / name

    def asked(self) -> dict[str, dict[str, int | None]]:
        """Features requested from `prep extract`, in order, each with its `Limits`."""
        if not self.dataset_json.is_file():
            return {}
        with _undamaged(self.dataset_json):
            return dict(json.loads(self.dataset_json.read_text())["asked"])

    def feature_order(self) -> list[str]:
        """Features in the order in which they were first requested."""
        return list(self.asked())

    def native_features(self) -> list[str]:
        """Features with native shards, in the order in which they were first requested."""
        return [name for name in self.feature_order() if any(self.native(name).glob("*.h5"))]

    def aligned_names(self) -> list[str]:
        """Names of the folders of aligned shards, in alphabetical order."""
        return sorted({path.parent.name for path in self.path.glob("aligned/*/*.h5")})

    def write_failures(
        self, failures: Iterable[tuple[str, str, str]], judged: Container[str]
    ) -> None:
        """Write ``failures.csv``, with one line per clip and stage.

        Parameters
        ----------
        failures
            Clip id, stage and reason.
        judged
            Ids of the clips that this run processed; earlier lines of other clips are kept.
        """
        lines = {*failures, *(line for line in self.read_failures() if line[0] not in judged)}
        columns = ["clip_id", "stage", "reason"]
        write_csv(pd.DataFrame(sorted(lines), columns=columns, dtype=object), self.failures_csv)

    def read_failures(self) -> set[tuple[str, str, str]]:
        """Clip id, stage and reason of every failure; empty if there is no ``failures.csv``.

        Raises
        ------
        FeatregError
            If the file is damaged.
        """
        if not self.failures_csv.is_file():
            return set()
        with _undamaged(self.failures_csv):
            table = read_csv(self.failures_csv).fillna("")
            columns = [table[name] for name in ("clip_id", "stage", "reason")]
            return set(zip(*columns, strict=True))

    def read_durations(self) -> dict[str, float]:
        """Length of each clip in seconds, for clips whose length is known."""
        if not self.clips_csv.is_file():
            return {}
        with _undamaged(self.clips_csv):
            table = read_csv(self.clips_csv, usecols=["clip_id", "duration_s"])
            table = table[table["duration_s"].notna()]
            return dict(zip(table["clip_id"].fillna(""), table["duration_s"], strict=True))

    def write_dataset(
        self,
        dataset: Dataset,
        features: Sequence[str],
        durations: Mapping[str, float] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Write the clip list and the description of the dataset, each file atomically.

        Parameters
        ----------
        dataset
            The dataset.
        features
            Requested features in order; those of earlier runs keep their positions.
        durations
            Decoded length of each clip in seconds; replaces the duration given by the dataset.
        limits
            Clips for which the features were requested, all if None; the limits of earlier runs
            are kept if they are higher.
        """
        known = durations or {}
        labels = np.stack([clip.label for clip in dataset.clips]).astype(object)
        labels[np.stack([clip.label_mask for clip in dataset.clips]) == 0] = None
        columns: dict[str, list[Any]] = {
            "clip_id": [clip.clip_id for clip in dataset.clips],
            "path": [str(clip.path) for clip in dataset.clips],
            "split": [clip.split for clip in dataset.clips],
            "fold": [clip.fold for clip in dataset.clips],
            "start_s": [clip.start_s for clip in dataset.clips],
            "duration_s": [known.get(clip.clip_id, clip.duration_s) for clip in dataset.clips],
        }
        if all(fold is None for fold in columns["fold"]):
            del columns["fold"]
        table = pd.DataFrame(columns, dtype=object)
        table = pd.concat([table, pd.DataFrame(labels, columns=list(dataset.classes))], axis=1)
        asked = self.asked()
        for name in features:
            for split, count in (limits or dict.fromkeys(SPLITS)).items():
                before = asked.setdefault(name, {}).get(split, 0)
                asked[name][split] = None if None in (count, before) else max(count, before)  # type: ignore[type-var]
        write_csv(table, self.clips_csv)
        about = {
            "name": dataset.name,
            "task": dataset.task,
            "content": dataset.content,
            "classes": dataset.classes,
            "known_bad": dataset.known_bad,
            "notes": dataset.notes,
            "asked": asked,
        }
        with atomic_path(self.dataset_json) as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold a lock on the folder until the block ends, so that no other command writes to it.

        Incomplete files of killed runs are removed before and after the block.

        Raises
        ------
        FeatregError
            If another process holds the lock.
        """
        busy = (
            "another prep command is writing to this folder; wait for it to finish, or use "
            "another working folder (--work)"
        )
        with exclusive(self.path, busy):
            self._remove_temporaries()
            try:
                yield
            finally:
                self._remove_temporaries()

    def _remove_temporaries(self) -> None:
        for part in ("native", "aligned"):
            remove_temporaries(self.path / part)

    def read_dataset(self) -> Dataset:
        """The dataset stored by `write_dataset`.

        Raises
        ------
        FeatregError
            If nothing was extracted yet, or a file is damaged.
        """
        if not self.clips_csv.is_file():
            raise FeatregError(
                f"{self.clips_csv}: no such file; run "
                f"`prep extract --dataset {self.name} --features ...` first"
            )
        with _undamaged(self.clips_csv, self.dataset_json):
            return self._read_dataset()

    def _read_dataset(self) -> Dataset:
        about = json.loads(self.dataset_json.read_text())
        classes = tuple(about["classes"])
        table = read_csv(self.clips_csv)
        first = len(table.columns) - len(classes)
        fixed, values = table.iloc[:, :first], table.iloc[:, first:]
        if {*fixed} | {"fold"} != {*_FIXED}:
            raise ValueError(f"expected the classes {', '.join(classes)} as the last columns")
        values = values.to_numpy(dtype=float)
        fixed = fixed.reindex(columns=list(_FIXED)).astype(object)
        clips = tuple(
            Clip(
                clip_id or "",
                Path(path),
                split,
                label,
                mask,
                float(start_s),
                duration_s,
                None if fold is None else int(fold),
            )
            for (clip_id, path, split, fold, start_s, duration_s), label, mask in zip(
                fixed.where(fixed.notna(), None).itertuples(index=False, name=None),
                np.nan_to_num(values).astype(np.uint8),
                (~np.isnan(values)).astype(np.uint8),
                strict=True,
            )
        )
        return Dataset(
            about["name"],
            classes,
            clips,
            about["task"],
            about["content"],
            tuple(about["known_bad"]),
            tuple(about["notes"]),
        )


@contextmanager
def _undamaged(*paths: Path) -> Iterator[None]:
    """Convert errors that damaged files cause to a `FeatregError` that names the files."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        names = " or ".join(str(path) for path in paths)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FeatregError(
            f"{names}: damaged, or written by another version of featreg ({reason}); delete it and "
            "run `prep extract` again, which writes the file and keeps the shards"
        ) from error


def first_clips(clips: Iterable[Clip], limits: Limits) -> list[Clip]:
    """The clips within `limits`, in the given order."""
    seen: Counter[str] = Counter()
    chosen = []
    for clip in clips:
        seen[clip.split] += 1
        limit = limits.get(clip.split, 0)
        if limit is None or seen[clip.split] <= limit:
            chosen.append(clip)
    return chosen


def splits_of(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Clips by split, in the order train, valid, test; the order within a split is kept."""
    grouped: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in clips:
        grouped[clip.split].append(clip)
    return {split: members for split, members in grouped.items() if members}


def choose(
    what: str, option: str, candidates: Sequence[str], wanted: str | None, empty: str
) -> str:
    """The candidate that the user selected, or the only one.

    Parameters
    ----------
    what
        Kind of the candidates, for error messages.
    option
        Command-line option that selects a candidate.
    candidates
        Available candidates.
    wanted
        The user's selection; None to use the only candidate.
    empty
        Error message if there are no candidates.

    Raises
    ------
    FeatregError
        If there are no candidates.
    UsageError
        If `wanted` is not among the candidates, or is None and there are several.
    """
    if not candidates:
        raise FeatregError(empty)
    if wanted is not None:
        if wanted not in candidates:
            raise UsageError(
                f"{option} {wanted}: no such {what}; available: {', '.join(candidates)}"
            )
        return wanted
    if len(candidates) > 1:
        raise UsageError(
            f"more than one {what} ({', '.join(candidates)}); choose one with {option}"
        )
    return candidates[0]


def choose_dataset(work: Path, wanted: str | None) -> DatasetDir:
    """The dataset in the working folder that the user selected, or the only one."""
    present = sorted(path.parent.name for path in work.glob("*/clips.csv"))
    empty = (
        f"{work}: no extracted dataset found; run `prep extract --dataset NAME --features ...` "
        "first, or give the working folder with --work"
    )
    return DatasetDir(work / choose("dataset", "--dataset", present, wanted, empty))
