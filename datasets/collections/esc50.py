"""ESC-50: 2,000 recordings of environmental sounds, 50 classes, five seconds each.

Folder::

    ROOT/meta/esc50.csv       filename, fold, target, category, esc10 and others, comma-separated
    ROOT/audio/*.wav

The five published folds keep recordings of one source (Freesound clip) together; published results
are the mean accuracy of five-fold cross-validation. The default split uses folds 1 to 3 for
training, 4 for validation and 5 for testing. ESC-10 is the subset of ten classes, 400 recordings,
that is licensed CC BY.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..base import Clip, Dataset, Split, label_vector
from .completeness import check_complete, names_in, wrong_root
from .csv_rows import damaged, read_table
from .info import Archive, DatasetInfo, Remote

INDEX = "meta/esc50.csv"
FOLDS = range(1, 6)
SPLIT_OF: dict[int, Split] = {4: "valid", 5: "test"}

ESC10 = (
    *("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain"),
    *("rooster", "sea_waves", "sneezing"),
)
CLASSES = (
    *("airplane", "breathing", "brushing_teeth", "can_opening", "car_horn", "cat", "chainsaw"),
    *("chirping_birds", "church_bells", "clapping", "clock_alarm", "clock_tick", "coughing", "cow"),
    *("crackling_fire", "crickets", "crow", "crying_baby", "dog", "door_wood_creaks"),
    *("door_wood_knock", "drinking_sipping", "engine", "fireworks", "footsteps", "frog"),
    *("glass_breaking", "hand_saw", "helicopter", "hen", "insects", "keyboard_typing", "laughing"),
    *("mouse_click", "pig", "pouring_water", "rain", "rooster", "sea_waves", "sheep", "siren"),
    *("sneezing", "snoring", "thunderstorm", "toilet_flush", "train", "vacuum_cleaner"),
    *("washing_machine", "water_drops", "wind"),
)

INFO = DatasetInfo(
    name="esc50",
    title="ESC-50",
    task="single-label",
    content="env",
    classes=CLASSES,
    clips=(1200, 400, 400),
    licence="CC BY-NC 3.0; the ESC-10 subset CC BY 3.0",
    citation=(
        'K. J. Piczak, "ESC: dataset for environmental sound classification", ACM Multimedia 2015'
    ),
    needs="`prep download esc50` downloads all of it (0.6 GB)",
    metric="accuracy",
)

DOWNLOADS = (
    Archive(
        # An archive of the repository, made on request: no checksum is published.
        parts=(Remote("https://github.com/karolpiczak/ESC-50/archive/master.zip"),),
        member=r"^ESC-50-master/((?:audio/[\w-]+\.wav)|meta/esc50\.csv)$",
        folder=".",
        files=2_001,
        download_bytes=650_000_000,
        unpacked_bytes=900_000_000,
    ),
)


def read(root: Path, *, esc10: bool = False, allow_missing: bool = False) -> Dataset:
    """The recordings, in the order of the index.

    Parameters
    ----------
    root
        The folder described above.
    esc10
        Only the ten classes of ESC-10.
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
        raise wrong_root(INFO, root, f"{INDEX} and audio/*.wav")
    classes = ESC10 if esc10 else CLASSES
    info = replace(INFO, clips=(240, 80, 80)) if esc10 else INFO
    present = names_in(root / "audio")
    clips, missing = [], []
    for line, row in read_table(index, ",", ("filename", "fold", "category")):
        name, word = row["filename"], row["category"]
        if row["fold"] not in map(str, FOLDS):
            raise damaged(index, line, "fold", "1 to 5", repr(row["fold"]))
        if word not in CLASSES:
            raise damaged(index, line, "category", "one of the 50 classes", repr(word))
        if word not in classes:
            continue
        if name not in present:
            missing.append(name)
            continue
        fold = int(row["fold"])
        label = label_vector(classes, [word])
        path = root / "audio" / name
        split = SPLIT_OF.get(fold, "train")
        clips.append(Clip(path.stem, path, split, label, np.ones_like(label), fold=fold))
    notes = check_complete(info, clips, missing, allow_missing)
    return Dataset("esc50", classes, tuple(clips), "single-label", "env", notes=notes)
