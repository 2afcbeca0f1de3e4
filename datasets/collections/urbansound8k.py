"""UrbanSound8K: 8,732 recordings of city sounds, ten classes, four seconds at most.

Folder::

    ROOT/metadata/UrbanSound8K.csv       slice_file_name, fold, class and others, comma-separated
    ROOT/audio/fold1 ... fold10/*.wav

The ten published folds keep recordings of one source (Freesound id) together. The authors ask for
ten-fold cross-validation and the mean over the folds; results on reshuffled data are not
comparable. The default split uses folds 1 to 8 for training, 9 for validation and 10 for testing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..base import Clip, Dataset, Split, label_vector
from .completeness import check_complete, names_in, wrong_root
from .csv_rows import damaged, read_table
from .info import Archive, DatasetInfo, Remote

INDEX = "metadata/UrbanSound8K.csv"
FOLDS = range(1, 11)
SPLIT_OF: dict[int, Split] = {9: "valid", 10: "test"}

CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)

INFO = DatasetInfo(
    name="urbansound8k",
    title="UrbanSound8K",
    task="single-label",
    content="env",
    classes=CLASSES,
    clips=(7079, 816, 837),
    licence="CC BY-NC 3.0",
    citation=(
        'J. Salamon, C. Jacoby and J. P. Bello, "A dataset and taxonomy for urban sound '
        'research", ACM Multimedia 2014'
    ),
    needs="`prep download urbansound8k` downloads all of it (6 GB)",
    metric="accuracy",
)

DOWNLOADS = (
    Archive(
        parts=(
            Remote(
                "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
                "md5:9aa69802bbf37fb986f71ec1483a196e",
            ),
        ),
        member=r"^UrbanSound8K/((?:audio/fold\d+/[\w-]+\.wav)|metadata/UrbanSound8K\.csv)$",
        folder=".",
        files=8_733,
        download_bytes=6_100_000_000,
        unpacked_bytes=7_200_000_000,
    ),
)


def read(root: Path, *, allow_missing: bool = False) -> Dataset:
    """The recordings, in the order of the index.

    Parameters
    ----------
    root
        The folder described above.
    allow_missing
        Use an incomplete dataset, and state what is missing beside every result.

    Raises
    ------
    FeatregError
        If `root` is another folder, the index is damaged, or other recordings than the
        published ones are there.
    """
    index = root / INDEX
    if not index.is_file():
        raise wrong_root(INFO, root, f"{INDEX} and audio/fold1 to audio/fold10 with *.wav")
    present = {fold: names_in(root / "audio" / f"fold{fold}") for fold in FOLDS}
    clips, missing = [], []
    for line, row in read_table(index, ",", ("slice_file_name", "fold", "class")):
        name, word = row["slice_file_name"], row["class"]
        if row["fold"] not in map(str, FOLDS):
            raise damaged(index, line, "fold", "1 to 10", repr(row["fold"]))
        if word not in CLASSES:
            raise damaged(index, line, "class", "one of " + ", ".join(CLASSES), repr(word))
        fold = int(row["fold"])
        if name not in present[fold]:
            missing.append(name)
            continue
        label = label_vector(CLASSES, [word])
        path = root / "audio" / f"fold{fold}" / name
        split = SPLIT_OF.get(fold, "train")
        clips.append(Clip(path.stem, path, split, label, np.ones_like(label), fold=fold))
    notes = check_complete(INFO, clips, missing, allow_missing)
    return Dataset("urbansound8k", CLASSES, tuple(clips), "single-label", "env", notes=notes)
