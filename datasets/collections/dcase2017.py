"""DCASE 2017 Task 4: 17 vehicle and warning sounds in 10 s clips of YouTube videos.

Folder::

    ROOT/groundtruth_weak_label_training_set.csv       51,172 clips
    ROOT/groundtruth_weak_label_testing_set.csv           488 clips
    ROOT/groundtruth_weak_label_evaluation_set.csv      1,103 clips
    ROOT/audio/training/Y*.wav
    ROOT/audio/testing/Y*.wav
    ROOT/audio/evaluation/Y*.wav

Each of the three audio folders may be a symbolic link. The label files are tab-separated
and have no header; the columns are file, start, end and label, with one row for each label of a
clip. The name of an audio file is that in the first column with the prefix ``Y``; the file
contains only the clip, of 1 to 10 s.

The split is that of Won et al. (2020). The challenge's evaluation set is the test set. The
training and testing sets are concatenated in that order, a tenth of the rows of every class is
drawn, and the clips of these rows form the validation set. This gives 46,042 training, 5,618
validation and 1,103 test clips. The id of a clip is its file name without ``.wav``. No YouTube
video occurs in two splits. The labels are weak: they do not say when in the clip a sound occurs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base import Clip, Dataset, Split, label_vector
from .completeness import check_complete, names_in, wrong_root
from .csv_rows import damaged, read_rows
from .info import Archive, DatasetInfo, Remote

SHORTEST_S, LONGEST_S = 1.0, 10.0

CLASSES = (
    "Train horn",
    "Air horn, truck horn",
    "Car alarm",
    "Reversing beeps",
    "Ambulance (siren)",
    "Police car (siren)",
    "Fire engine, fire truck (siren)",
    "Civil defense siren",
    "Screaming",
    "Bicycle",
    "Skateboard",
    "Car",
    "Car passing by",
    "Bus",
    "Truck",
    "Motorcycle",
    "Train",
)

INFO = DatasetInfo(
    name="dcase2017",
    title="DCASE 2017 Task 4",
    task="multi-label",
    content="env",
    classes=CLASSES,
    clips=(46_042, 5_618, 1_103),
    licence="labels CC BY 4.0 (AudioSet); the audio belongs to the authors of the videos",
    citation=(
        "A. Mesaros et al., "
        '"DCASE 2017 challenge setup: tasks, datasets and baseline system", DCASE workshop 2017'
    ),
    needs=(
        "`prep download dcase2017` downloads the labels and the evaluation audio (0.9 GB); the "
        "training and testing audio can no longer be downloaded: copy the challenge's Y*.wav "
        "files to ROOT/audio/training and ROOT/audio/testing"
    ),
    metric="f1_samples",
)

_LABELS = (
    "https://raw.githubusercontent.com/ankitshah009/"
    "Task-4-Large-scale-weakly-supervised-sound-event-detection-for-smart-cars/"
    "master/groundtruth_release/groundtruth_weak_label_{}_set.csv"
)
DOWNLOADS = (
    Remote(_LABELS.format("training"), "md5:1a98a76221fa5b5a85aaee9dbf02a2bf"),
    Remote(_LABELS.format("testing"), "md5:b742b4d6517c82595e09a65d470ff811"),
    Remote(_LABELS.format("evaluation"), "md5:01b503f8915fdcbc73da46950e35b74e"),
    Archive(
        parts=(
            Remote(
                "https://dl.dropboxusercontent.com/s/bbgqfd47cudwe9y/"
                "DCASE_2017_evaluation_set_audio_files.zip",
                "md5:676b0b4a956db2445b16d7b13522808b",
                863_120_639,
            ),
        ),
        member=r"(?:^|/)(Y[^/]+\.wav)$",
        folder="audio/evaluation",
        files=1_103,
        download_bytes=863_120_639,
        unpacked_bytes=2_000_000_000,
        password="DCASE_2017_evaluation_set",
    ),
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One label of one clip."""

    folder: str  # training, testing or evaluation
    file: str
    label: str


def read(root: Path, *, allow_missing: bool = False) -> Dataset:
    """The clips in the order of the label files: training, testing, evaluation.

    Parameters
    ----------
    root
        Folder with the layout described above.
    allow_missing
        Use the clips that are present; `Dataset.notes` states their number and the number of
        missing clips per class. The split does not depend on which clips are missing.

    Raises
    ------
    FeatregError
        If `root` does not contain the dataset, a label file is damaged, or the clips differ
        from the published ones.
    """
    folders = ("training", "testing", "evaluation")
    tables = {folder: f"groundtruth_weak_label_{folder}_set.csv" for folder in folders}
    present = {folder: names_in(root / "audio" / folder) for folder in folders}
    if not all((root / table).is_file() for table in tables.values()) or not any(present.values()):
        expected = f"{', '.join(tables.values())} and audio/{{{','.join(folders)}}}/Y*.wav"
        raise wrong_root(INFO, root, expected)

    rows = {folder: _read_rows(root / table, folder) for folder, table in tables.items()}
    valid = _validation_files([*rows["training"], *rows["testing"]])
    labels: dict[tuple[str, str], list[str]] = {}
    for row in (row for folder in folders for row in rows[folder]):
        labels.setdefault((row.folder, row.file), []).append(row.label)

    clips, missing = [], []
    missing_of_class: Counter[str] = Counter()
    for (folder, file), names in labels.items():
        if f"Y{file}" not in present[folder]:
            missing.append(f"{folder}/Y{file}")
            missing_of_class.update(names)
            continue
        split: Split = "test" if folder == "evaluation" else "valid" if file in valid else "train"
        label = label_vector(CLASSES, names)
        path = root / "audio" / folder / f"Y{file}"
        clips.append(Clip(file.removesuffix(".wav"), path, split, label, np.ones_like(label)))

    by_class = [f"'{name}' {lost:,}" for name in CLASSES if (lost := missing_of_class[name])]
    also = [f"of these, by class: {', '.join(by_class)}"] if missing else []
    notes = check_complete(INFO, clips, missing, allow_missing, also)
    return Dataset("dcase2017", CLASSES, tuple(clips), content="env", notes=notes)


def _read_rows(path: Path, folder: str) -> list[_Row]:
    rows = []
    for line, (file, start, end, label) in read_rows(path, "\t", width=4):
        if not re.fullmatch(r"[\w-]{11}_\d+\.\d{3}_\d+\.\d{3}\.wav", file):
            raise damaged(path, line, "file", "a name like ID_30.000_40.000.wav", repr(file))
        seconds = _seconds(path, line, "end", end) - _seconds(path, line, "start", start)
        if not SHORTEST_S <= seconds <= LONGEST_S:
            expected = f"a time {SHORTEST_S:g} to {LONGEST_S:g} s after the start"
            raise damaged(path, line, "end", expected, end)
        if label not in CLASSES:
            raise damaged(path, line, "label", "one of the 17 classes", repr(label))
        rows.append(_Row(folder, file, label))
    return rows


def _seconds(path: Path, line: int, column: str, cell: str) -> float:
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise damaged(path, line, column, "a time in seconds", repr(cell))
    return seconds


def _validation_files(rows: Sequence[_Row]) -> frozenset[str]:
    """Files of a tenth of the rows of every class, sampled as by ``pandas.DataFrame.sample``.

    The generator is NumPy's legacy one, whose numbers never change, seeded with 123 for every
    class. A clip with several labels can be drawn once for each of them.
    """
    files: set[str] = set()
    for name in CLASSES:
        of_class = [row.file for row in rows if row.label == name]
        generator = np.random.RandomState(123)
        drawn = generator.choice(len(of_class), size=round(0.1 * len(of_class)), replace=False)
        files.update(of_class[i] for i in drawn)
    return frozenset(files)
