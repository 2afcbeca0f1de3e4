"""Where things lie in the working folder, and which of them is meant.

::

    WORK/DATASET/dataset.json                      task, classes, notes
    WORK/DATASET/clips.csv                         clip_id, path, split, duration_s, labels...
    WORK/DATASET/native/FEATURE/SPLIT-00000.h5     one stream on its own time grid
    WORK/DATASET/aligned/NAME/SPLIT-00000.h5       everything the trainer needs
    WORK/DATASET/failures.csv                      clip_id, stage, reason
    WORK/runs/RUN/                                 config, metrics, checkpoint, predictions
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..base import SPLITS, Clip, Dataset, FeatregError, UsageError
from ..locks import exclusive
from .hdf5 import atomic_path, remove_temporaries

_FIXED = ("clip_id", "path", "split", "start_s", "duration_s")

# Lines of the clip list that are read together: of 527 classes, some 30 MB.
_BLOCK = 4096


def shard_name(split: str, index: int) -> str:
    """File name of a split's `index`-th shard."""
    return f"{split}-{index:05d}.h5"


@dataclass(frozen=True, slots=True, eq=False)
class ClipBlock:
    """Some lines of the clip list: n clips, with `label` and `label_mask` (n, classes), uint8."""

    clip_id: tuple[str, ...]
    split: tuple[str, ...]
    label: npt.NDArray[np.uint8]
    label_mask: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DatasetDir:
    """One dataset's folder in the working folder."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.path.name

    @property
    def clips_csv(self) -> Path:
        """The clip list."""
        return self.path / "clips.csv"

    @property
    def dataset_json(self) -> Path:
        """What the labels mean."""
        return self.path / "dataset.json"

    @property
    def failures_csv(self) -> Path:
        """Every clip that gave no rows, and why."""
        return self.path / "failures.csv"

    def native(self, feature: str) -> Path:
        """Folder of a feature's native shards."""
        return self.path / "native" / feature

    def aligned(self, name: str) -> Path:
        """Folder of the aligned shards called `name`."""
        return self.path / "aligned" / name

    def feature_order(self) -> list[str]:
        """Features in the order in which they were first asked for."""
        if not self.dataset_json.is_file():
            return []
        with _undamaged(self.dataset_json):
            return list(json.loads(self.dataset_json.read_text())["features"])

    def native_features(self) -> list[str]:
        """Features that have native shards, in the order in which they were asked for."""
        return [name for name in self.feature_order() if any(self.native(name).glob("*.h5"))]

    def aligned_names(self) -> list[str]:
        """Aligned sets that have shards, in alphabetical order."""
        return sorted({path.parent.name for path in self.path.glob("aligned/*/*.h5")})

    def write_failures(
        self, failures: Iterable[tuple[str, str, str]], judged: Container[str]
    ) -> None:
        """Write ``failures.csv``, each clip and stage once.

        Parameters
        ----------
        failures
            Clip id, stage and reason.
        judged
            Clips of which this run knows the outcome; of others, earlier lines stay.
        """
        rows = {*failures, *(row for row in self.read_failures() if row[0] not in judged)}
        with atomic_path(self.failures_csv) as temporary:
            table = pd.DataFrame(sorted(rows), columns=["clip_id", "stage", "reason"])
            table.to_csv(temporary, index=False)

    def read_failures(self) -> set[tuple[str, str, str]]:
        """Clip id, stage and reason of every failure; none if there is no ``failures.csv``.

        Raises
        ------
        FeatregError
            If the file is not as it was written.
        """
        if not self.failures_csv.is_file():
            return set()
        with _undamaged(self.failures_csv):
            table = pd.read_csv(self.failures_csv, dtype=str, keep_default_na=False)
            columns = [table[name] for name in ("clip_id", "stage", "reason")]
            return set(zip(*columns, strict=True))

    def read_durations(self) -> dict[str, float]:
        """Length of each clip in seconds, as far as it is known."""
        if not self.clips_csv.is_file():
            return {}
        with _undamaged(self.clips_csv):
            table = pd.read_csv(
                self.clips_csv,
                usecols=["clip_id", "duration_s"],
                dtype={"clip_id": str},
                keep_default_na=False,
                na_values={"duration_s": [""]},
            ).dropna()
            return dict(zip(table["clip_id"], table["duration_s"].astype(float), strict=True))

    def write_dataset(
        self,
        dataset: Dataset,
        features: Sequence[str],
        durations: Mapping[str, float] | None = None,
    ) -> None:
        """Write the clip list and what its labels mean, each atomically.

        Parameters
        ----------
        dataset
            The clips.
        features
            Features in the order asked for; those of earlier runs keep their places.
        durations
            Decoded lengths; where one is known it replaces what the dataset says.
        """
        known = durations or {}
        labels = np.stack([clip.label for clip in dataset.clips]).astype(object)
        labels[np.stack([clip.label_mask for clip in dataset.clips]) == 0] = ""
        table = pd.DataFrame(
            {
                "clip_id": [clip.clip_id for clip in dataset.clips],
                "path": [str(clip.path) for clip in dataset.clips],
                "split": [clip.split for clip in dataset.clips],
                "start_s": [clip.start_s for clip in dataset.clips],
                "duration_s": [known.get(clip.clip_id, clip.duration_s) for clip in dataset.clips],
            }
        )
        table = pd.concat([table, pd.DataFrame(labels, columns=list(dataset.classes))], axis=1)
        with atomic_path(self.clips_csv) as temporary:
            table.to_csv(temporary, index=False)
        about = {
            "name": dataset.name,
            "task": dataset.task,
            "content": dataset.content,
            "classes": dataset.classes,
            "known_bad": dataset.known_bad,
            "notes": dataset.notes,
            "features": list(dict.fromkeys([*self.feature_order(), *features])),
        }
        with atomic_path(self.dataset_json) as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder against other writing runs, as long as the block lasts.

        What a killed run left half written is removed, before and after.

        Raises
        ------
        FeatregError
            If another process holds it.
        """
        busy = (
            "another prep command is writing here; wait for it, or work in another folder (--work)"
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
        """The dataset that `write_dataset` stored.

        Raises
        ------
        FeatregError
            If nothing was extracted here yet, or a file is not as it was written.
        """
        if not self.clips_csv.is_file():
            raise FeatregError(
                f"{self.clips_csv}: no such file; run "
                f"`prep extract --dataset {self.name} --features ...` first"
            )
        with _undamaged(self.clips_csv, self.dataset_json):
            return self._read_dataset()

    def read_classes(self) -> tuple[str, ...]:
        """Class names in the order of the clip list's label columns.

        Raises
        ------
        FeatregError
            If ``dataset.json`` is not as it was written, or not there.
        """
        with _undamaged(self.dataset_json):
            return tuple(json.loads(self.dataset_json.read_text())["classes"])

    def clip_blocks(self) -> Iterator[ClipBlock]:
        """The clip list in order, a few thousand clips at a time.

        Millions of clips with hundreds of classes are not in memory together.

        Raises
        ------
        FeatregError
            If a file is not as it was written, or not there.
        """
        classes = self.read_classes()
        with _undamaged(self.clips_csv):
            for table in pd.read_csv(
                self.clips_csv,
                usecols=["clip_id", "split", *classes],
                dtype={"clip_id": str, "split": str},
                keep_default_na=False,
                na_values={name: [""] for name in classes},
                chunksize=_BLOCK,
            ):
                yield ClipBlock(
                    tuple(table["clip_id"]), tuple(table["split"]), *_labels(table, classes)
                )

    def _read_dataset(self) -> Dataset:
        about = json.loads(self.dataset_json.read_text())
        classes = tuple(about["classes"])
        table = pd.read_csv(
            self.clips_csv,
            dtype={"clip_id": str, "path": str, "split": str},
            keep_default_na=False,
            na_values={"duration_s": [""], **{name: [""] for name in classes}},
        )
        labels, masks = _labels(table, classes)
        clips = tuple(
            Clip(
                clip_id,
                Path(path),
                split,
                label,
                mask,
                start_s=start_s,
                duration_s=None if math.isnan(duration_s) else duration_s,
            )
            for clip_id, path, split, start_s, duration_s, label, mask in zip(
                *(table[name].tolist() for name in _FIXED), labels, masks, strict=True
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


def _labels(
    table: pd.DataFrame, classes: Sequence[str]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Labels and their mask, each (n, classes), from lines of the clip list."""
    values = table[list(classes)].to_numpy(dtype=float)
    return np.nan_to_num(values).astype(np.uint8), (~np.isnan(values)).astype(np.uint8)


@contextmanager
def _undamaged(*paths: Path) -> Iterator[None]:
    """Name the files that cannot be read as they were written."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        names = " or ".join(str(path) for path in paths)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FeatregError(
            f"{names}: not as featreg wrote it ({reason}); delete it and run `prep extract` again, "
            "which writes it anew and keeps the shards"
        ) from error


def splits_of(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Clips by split, in the order train, valid, test and as they come within one."""
    grouped: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in clips:
        grouped[clip.split].append(clip)
    return {split: members for split, members in grouped.items() if members}


def choose(
    what: str, option: str, candidates: Sequence[str], wanted: str | None, empty: str
) -> str:
    """The one candidate that is meant.

    Parameters
    ----------
    what
        What the candidates are, for messages.
    option
        The option that decides between them.
    candidates
        What is there.
    wanted
        What the user asked for, None for the only one there is.
    empty
        What to say when there is none: the next step.

    Raises
    ------
    FeatregError
        If there is no candidate.
    UsageError
        If `wanted` is not among them, or is None and there are several.
    """
    if not candidates:
        raise FeatregError(empty)
    if wanted is not None:
        if wanted not in candidates:
            raise UsageError(f"{option} {wanted}: no such {what}; there is {', '.join(candidates)}")
        return wanted
    if len(candidates) > 1:
        raise UsageError(
            f"more than one {what} ({', '.join(candidates)}); choose one with {option}"
        )
    return candidates[0]


def choose_dataset(work: Path, wanted: str | None) -> DatasetDir:
    """The dataset in the working folder that is meant."""
    present = sorted(path.parent.name for path in work.glob("*/clips.csv"))
    empty = (
        f"{work}: nothing was extracted here; run `prep extract --dataset NAME --features ...` "
        "first, or name the working folder with --work"
    )
    return DatasetDir(work / choose("dataset", "--dataset", present, wanted, empty))
