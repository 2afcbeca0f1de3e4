"""Speech Commands v2: 105,829 recordings of 35 spoken words, one second each.

Folder::

    ROOT/validation_list.txt         one WORD/NAME.wav per line
    ROOT/testing_list.txt            the same
    ROOT/WORD/NAME.wav               for each of the 35 words

Every recording contains one word: the task is single-label, and its metric is accuracy. The
published lists define the validation and test splits, and all other recordings are for
training: 84,843 / 9,981 / 11,005 recordings for training / validation / test. A file name starts
with the speaker (``SPEAKER_nohash_N.wav``), and no speaker occurs in two splits. The background
noises of the dataset are not used.

This is the third task of Won et al. (2020), after MagnaTagATune and DCASE 2017.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..base import Clip, Dataset, Split, label_vector
from .completeness import check_complete, names_in, wrong_root
from .csv_rows import damaged, read_rows
from .info import Archive, DatasetInfo, Remote

LISTS: dict[str, Split] = {"validation_list.txt": "valid", "testing_list.txt": "test"}

_RECORDING = re.compile(r"\w+\.wav")

WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward"),
    *("four", "go", "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on"),
    *("one", "right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up", "visual"),
    *("wow", "yes", "zero"),
)

INFO = DatasetInfo(
    name="speech_commands",
    title="Speech Commands v2",
    task="single-label",
    content="env",
    classes=WORDS,
    clips=(84_843, 9_981, 11_005),
    licence="CC BY 4.0",
    citation=(
        'P. Warden, "Speech Commands: a dataset for limited-vocabulary speech recognition", '
        "arXiv:1804.03209, 2018"
    ),
    needs="`prep download speech_commands` downloads all of it (2.4 GB)",
    metric="accuracy",
)

DOWNLOADS = (
    Archive(
        parts=(
            Remote(
                "https://storage.googleapis.com/download.tensorflow.org/data/"
                "speech_commands_v0.02.tar.gz",
                "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                2_428_923_189,
            ),
        ),
        member=r"^(?:\./)?((?:[a-z]+/\w+\.wav)|(?:validation|testing)_list\.txt)$",
        folder=".",
        files=105_831,
        download_bytes=2_428_923_189,
        unpacked_bytes=3_500_000_000,
    ),
)


def read(root: Path, *, allow_missing: bool = False) -> Dataset:
    """The recordings, sorted by word and then by name.

    Parameters
    ----------
    root
        Folder with the layout described above.
    allow_missing
        Use the recordings that are present; `Dataset.notes` states their number.

    Raises
    ------
    FeatregError
        If `root` does not contain the dataset, a list is damaged, or the recordings differ from
        the published ones.
    """
    present = {word: names_in(root / word) for word in WORDS}
    if not all((root / name).is_file() for name in LISTS) or not any(present.values()):
        raise wrong_root(INFO, root, f"{', '.join(LISTS)} and 35 folders of words")
    listed = {file: split for name, split in LISTS.items() for file in _read_list(root / name)}
    clips = []
    for word in WORDS:
        label = label_vector(WORDS, [word])
        for name in sorted(filter(_RECORDING.fullmatch, present[word])):
            file = f"{word}/{name}"
            clip_id = file.removesuffix(".wav")
            split = listed.pop(file, "train")
            clips.append(Clip(clip_id, root / file, split, label, np.ones_like(label)))
    notes = check_complete(INFO, clips, sorted(listed), allow_missing)
    return Dataset("speech_commands", WORDS, tuple(clips), "single-label", "env", notes=notes)


def _read_list(path: Path) -> list[str]:
    files = []
    for line, (file,) in read_rows(path, "\t", width=1):
        word, _, name = file.partition("/")
        if word not in WORDS or not _RECORDING.fullmatch(name):
            raise damaged(path, line, 1, "a path like yes/NAME.wav", repr(file))
        files.append(file)
    return files
