from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from miniatures import DCASE_ROWS, write_dcase

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.collections import dcase2017

TRAINING = "groundtruth_weak_label_training_set.csv"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The miniature, as if it were the published dataset."""
    monkeypatch.setattr(dcase2017, "INFO", replace(dcase2017.INFO, clips=(29, 3, 1)))
    write_dcase(tmp_path, DCASE_ROWS)
    return tmp_path


def split_as_published(folder: Path) -> set[str]:
    """Validation files, by the words of the published procedure in pandas."""
    tables = [
        pd.read_csv(
            folder / f"groundtruth_weak_label_{name}_set.csv",
            sep="\t",
            names=["file", "start", "end", "label"],
        )
        for name in ("training", "testing")
    ]
    pooled = pd.concat(tables)
    drawn: set[str] = set()
    for name in dcase2017.CLASSES:
        of_class = pooled[pooled["label"] == name]
        drawn.update(of_class.sample(frac=0.1, random_state=123)["file"])
    return {file.removesuffix(".wav") for file in drawn}


def ids(dataset: Dataset, split: str) -> set[str]:
    return {clip.clip_id for clip in dataset.clips if clip.split == split}


def test_split_labels_and_paths(root: Path) -> None:
    dataset = dcase2017.read(root)
    assert dataset.notes == ()
    assert ids(dataset, "valid") == split_as_published(root)
    assert ids(dataset, "test") == {"evaluation__0.000_10.000"}
    by_id = {clip.clip_id: clip for clip in dataset.clips}
    dashed = by_id["-train00001_30.000_40.000"]
    assert dashed.path == root / "audio/training/Y-train00001_30.000_40.000.wav"
    for clip_id, names in (
        ("-train00001_30.000_40.000", {"Train", "Air horn, truck horn"}),
        ("evaluation__0.000_10.000", {"Bus", "Car"}),
    ):
        label = by_id[clip_id].label
        assert {dcase2017.CLASSES[i] for i in label.nonzero()[0]} == names
        assert by_id[clip_id].label_mask.all()


def test_label_files_may_end_their_lines_as_on_windows(root: Path) -> None:
    before = dcase2017.read(root)
    path = root / TRAINING
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    after = dcase2017.read(root)
    assert [c.clip_id for c in before.clips] == [c.clip_id for c in after.clips]


def test_missing_audio_is_counted_by_class_and_moves_no_other_clip(root: Path) -> None:
    whole = dcase2017.read(root)
    for file in ("-train00001_30.000_40.000.wav", "-train00002_30.000_40.000.wav"):
        (root / "audio/training" / f"Y{file}").unlink()
    counts = "2 without an audio file (training/Y-train00001_30.000_40.000.wav, "
    by_class = "of these, by class: 'Air horn, truck horn' 1, 'Train' 2"
    with pytest.raises(FeatregError, match=re.escape(counts)) as caught:
        dcase2017.read(root)
    assert by_class in str(caught.value)
    assert "ROOT/audio/training" in str(caught.value)
    dataset = dcase2017.read(root, allow_missing=True)
    assert by_class in dataset.notes[0]
    splits = {clip.clip_id: clip.split for clip in whole.clips}
    assert len(dataset.clips) == len(whole.clips) - 2
    assert all(clip.split == splits[clip.clip_id] for clip in dataset.clips)


def test_without_any_audio_there_is_no_dataset(root: Path) -> None:
    (root / "audio").rename(root / "sound")
    with pytest.raises(FeatregError, match=r"expected groundtruth.* found .*, sound"):
        dcase2017.read(root, allow_missing=True)


def test_without_a_label_file_there_is_no_dataset(root: Path) -> None:
    (root / TRAINING).unlink()
    with pytest.raises(FeatregError, match=f"expected {TRAINING}"):
        dcase2017.read(root, allow_missing=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t30.000\t", "\thalf past\t", "column start: expected a time in seconds, found 'half"),
        ("\t40.000\t", "\tnan\t", "column end: expected a time in seconds, found 'nan'"),
        ("\t40.000\t", "\t30.000\t", "column end: expected a time 1 to 10 s after the start"),
        ("\t40.000\t", "\t30.999\t", "column end: expected a time 1 to 10 s after the start"),
        ("\t40.000\t", "\t40.001\t", "column end: expected a time 1 to 10 s after the start"),
        ("\tTrain\n", "\tTrian\n", "column label: expected one of the 17 classes, found 'Trian'"),
        ("\tTrain\n", "\n", "column 4: expected 4 columns, found 3"),
        ("\tTrain\n", "\tTrain\t1\n", "column 5: expected 4 columns, found 5"),
        ("-train00000_", "../train0_", "column file: expected a name like"),
    ],
)
def test_damage_is_named_by_line_and_column(root: Path, old: str, new: str, message: str) -> None:
    path = root / TRAINING
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(FeatregError, match=re.escape(f"{path}, line 1, {message}")):
        dcase2017.read(root, allow_missing=True)


def test_the_real_label_files(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared / "data" / "dcase2017_task4"
    present = {}
    for folder in ("training", "testing", "evaluation"):
        table = source / f"groundtruth_weak_label_{folder}_set.csv"
        (tmp_path / table.name).symlink_to(table)
        present[folder] = {f"Y{line.split()[0]}" for line in table.read_text().splitlines()}
    monkeypatch.setattr(dcase2017, "names_in", lambda folder: present[folder.name])
    dataset = dcase2017.read(tmp_path)
    assert dataset.notes == ()
    counts = Counter(clip.split for clip in dataset.clips)
    assert counts == {"train": 46_042, "valid": 5_618, "test": 1_103}
    assert ids(dataset, "valid") == split_as_published(source)
    assert sum(clip.label.sum() for clip in dataset.clips) == 56_131 + 606 + 1_350
    videos = {split: {name[:11] for name in ids(dataset, split)} for split in ("train", "valid")}
    assert not videos["train"] & videos["valid"]
    tested = {name[:11] for name in ids(dataset, "test")}
    assert not tested & (videos["train"] | videos["valid"])
