"""The record of a dataset: what was asked for, what failed, and which dataset is meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kit import make_clip

from featreg.datasets.base import Clip, Dataset, FeatregError, Split, UsageError
from featreg.datasets.shards.workdir import (
    DatasetDir,
    choose,
    choose_dataset,
    first_clips,
    splits_of,
)


def clip(name: str, split: Split = "train", **changes: object) -> Clip:
    made = make_clip(Path("/music") / f"{name}.wav", split=split)
    return replace(made, **changes)  # type: ignore[arg-type]


def dataset(*clips: Clip) -> Dataset:
    return Dataset(
        "tones", ("low", "high"), clips, "single-label", "env", known_bad=("z",), notes=("Tones.",)
    )


@pytest.fixture
def folder(tmp_path: Path) -> DatasetDir:
    return DatasetDir(tmp_path / "tones")


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_nothing_is_known_of_a_new_folder(folder: DatasetDir) -> None:
    assert folder.asked() == {}
    assert folder.native_features() == folder.aligned_names() == []
    assert folder.read_failures() == set()
    assert folder.read_durations() == {}
    with pytest.raises(FeatregError, match="prep extract --dataset tones"):
        folder.read_dataset()


def test_the_clip_list_comes_back(folder: DatasetDir) -> None:
    clips = (
        clip("a", start_s=0.25, duration_s=1.5, fold=2),
        clip("b", "test", label=np.array([0, 1], np.uint8), label_mask=np.array([0, 1], np.uint8)),
    )
    folder.write_dataset(dataset(*clips), ["audio"])
    found = folder.read_dataset()
    for name in ("name", "classes", "task", "content", "known_bad", "notes"):
        assert getattr(found, name) == getattr(dataset(), name)
    for before, back in zip(clips, found.clips, strict=True):
        for name in ("clip_id", "path", "split", "start_s", "duration_s", "fold"):
            assert getattr(back, name) == getattr(before, name)
        assert back.label.tolist() == before.label.tolist()
        assert back.label_mask.tolist() == before.label_mask.tolist()
        assert back.label.dtype == back.label_mask.dtype == np.uint8
    table = pd.read_csv(folder.clips_csv)
    assert table.columns.tolist()[3:] == ["fold", "start_s", "duration_s", "low", "high"]
    assert table["low"].isna().tolist() == [False, True]


def test_a_column_of_folds_is_there_where_one_clip_has_one(folder: DatasetDir) -> None:
    folder.write_dataset(dataset(clip("a"), clip("b")), [])
    assert "fold" not in pd.read_csv(folder.clips_csv)
    assert [each.fold for each in folder.read_dataset().clips] == [None, None]


def test_decoded_lengths_replace_those_of_the_dataset(folder: DatasetDir) -> None:
    clips = dataset(clip("a", duration_s=1.5), clip("b", duration_s=2.5), clip("c"))
    folder.write_dataset(clips, [])
    assert folder.read_durations() == {"a": 1.5, "b": 2.5}
    folder.write_dataset(clips, [], {"a": 1.25, "z": 9.0})
    assert folder.read_durations() == {"a": 1.25, "b": 2.5}


def test_the_most_that_was_asked_for_of_each_split_is_kept(folder: DatasetDir) -> None:
    clips = dataset(clip("a"))
    folder.write_dataset(clips, ["b"], limits={"train": 3})
    folder.write_dataset(clips, ["a", "b"], limits={"train": 2, "valid": 1})
    assert folder.asked() == {"b": {"train": 3, "valid": 1}, "a": {"train": 2, "valid": 1}}
    folder.write_dataset(clips, ["b"], limits={"train": 4, "valid": None})
    folder.write_dataset(clips, ["b"], limits={"valid": 5})
    assert folder.asked()["b"] == {"train": 4, "valid": None}
    folder.write_dataset(clips, ["a"])
    assert folder.asked()["a"] == dict.fromkeys(("train", "valid", "test"))
    assert folder.feature_order() == ["b", "a"]
    folder.write_dataset(clips, ["c"], limits={"test": 0})
    assert folder.asked()["c"] == {"test": 0}


def test_features_and_aligned_sets_are_those_with_shards(folder: DatasetDir) -> None:
    folder.write_dataset(dataset(clip("a")), ["b", "a", "c"])
    for name in ("b", "a", "other"):
        touch(folder.native(name) / "00000.h5")
    touch(folder.native("c") / "notes.txt")
    for name in ("z-1s", "y-1s"):
        touch(folder.aligned(name) / "00000.h5")
        touch(folder.aligned(name) / "00001.h5")
    folder.aligned("empty").mkdir()
    assert folder.native_features() == ["b", "a"]
    assert folder.aligned_names() == ["y-1s", "z-1s"]


def test_failures_of_clips_that_were_not_judged_stay(folder: DatasetDir) -> None:
    folder.path.mkdir()
    old = [("a", "decode", "gone"), ("b", "decode", "gone"), ("b", "extract", "odd")]
    folder.write_failures([*old, old[0]], judged=())
    assert folder.read_failures() == set(old)
    folder.write_failures([("c", "decode", "")], judged={"b", "c"})
    assert folder.read_failures() == {old[0], ("c", "decode", "")}
    assert folder.failures_csv.read_text().splitlines() == [
        "clip_id,stage,reason",
        "a,decode,gone",
        "c,decode,",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.json", "{"),
        ("dataset.json", "[]"),
        ("dataset.json", "{}"),
        ("clips.csv", "clip_id,path\n"),
        ("clips.csv", "clip_id,path,split,start_s,duration_s,extra,low,high\n"),
        ("clips.csv", "clip_id,path,split,start_s,low,high\n"),
        ("clips.csv", "clip_id,path,split,start_s,duration_s,low,high\na,a.wav,train,0,,x,1\n"),
        ("failures.csv", "clip,reason\n"),
    ],
)
def test_lists_that_are_not_as_they_were_written_are_named(
    folder: DatasetDir, name: str, content: str
) -> None:
    folder.write_dataset(dataset(clip("a")), ["audio"])
    folder.write_failures([], judged=())
    (folder.path / name).write_text(content)

    def read() -> None:
        folder.asked()
        folder.read_durations()
        folder.read_dataset()
        folder.read_failures()

    with pytest.raises(FeatregError, match=rf"{folder.path / name}.*delete"):
        read()


def test_lengths_of_a_list_without_them_are_not_guessed(folder: DatasetDir) -> None:
    folder.path.mkdir()
    folder.clips_csv.write_text("clip_id,seconds\na,1\n")
    with pytest.raises(FeatregError, match=r"clips\.csv"):
        folder.read_durations()


def test_what_was_asked_for_has_to_be_recorded(folder: DatasetDir) -> None:
    folder.write_dataset(dataset(clip("a")), ["audio"])
    about = json.loads(folder.dataset_json.read_text())
    del about["asked"]
    folder.dataset_json.write_text(json.dumps(about))
    with pytest.raises(FeatregError, match=r"dataset\.json"):
        folder.asked()


def test_the_first_clips_of_each_split_are_taken() -> None:
    clips = [clip(name, split) for name, split in zip(
        "abcdef", ("train", "valid", "train", "test", "valid", "train"), strict=True)]  # type: ignore[arg-type] # fmt: skip
    found = first_clips(clips, {"train": 2, "valid": None})
    assert [each.clip_id for each in found] == ["a", "b", "c", "e"]
    assert [each.clip_id for each in first_clips(clips, {"test": 1, "train": 0})] == ["d"]
    assert first_clips(clips, {}) == []
    grouped = splits_of(clips)
    assert list(grouped) == ["train", "valid", "test"]
    assert [each.clip_id for each in grouped["valid"]] == ["b", "e"]
    assert list(splits_of(clips[1:2])) == ["valid"]


def test_the_candidate_that_is_meant() -> None:
    def meant(candidates: list[str], wanted: str | None) -> str:
        return choose("set", "--set", candidates, wanted, "make one")

    assert meant(["a"], None) == "a"
    assert meant(["a", "b"], "b") == "b"
    for candidates, wanted, error in (
        ([], None, "make one"),
        ([], "a", "make one"),
        (["a", "b"], None, "a, b"),
        (["a", "b"], "c", "--set c"),
    ):
        with pytest.raises(FeatregError, match=error) as caught:
            meant(candidates, wanted)
        assert isinstance(caught.value, UsageError) == bool(candidates)


def test_the_dataset_that_is_meant(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="prep extract"):
        choose_dataset(tmp_path, None)
    for name in ("b", "a"):
        touch(tmp_path / name / "clips.csv")
    (tmp_path / "c").mkdir()
    assert choose_dataset(tmp_path, "b") == DatasetDir(tmp_path / "b")
    with pytest.raises(UsageError, match="a, b"):
        choose_dataset(tmp_path, None)
    (tmp_path / "b" / "clips.csv").unlink()
    assert choose_dataset(tmp_path, None).name == "a"
