"""Splits of own clips: as written, made from folds, and stratified."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from label_files import many, splits, write

from featreg.datasets.base import FeatregError
from featreg.datasets.collections.manifest import read
from featreg.datasets.collections.stratify import stratify

SHARES = (0.8, 0.1, 0.1)
NONE_YET = np.zeros((3, 1), np.int32)


def shares_of(path: Path, **options: str | int) -> Counter[str]:
    return Counter(splits(read(path, **options)).values())


# --- written


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("train val test", "train valid test"),
        ("Training Validation Testing", "train valid test"),
        ("train dev test", "train valid test"),
        ("train dev eval", "train valid test"),
        ("train val evaluation", "train valid test"),
        ("train eval test", "train valid test"),
    ],
)
def test_names_of_splits(tmp_path: Path, names: str, expected: str) -> None:
    rows = [f"{name}.wav,{split},x" for name, split in zip("abc", names.split(), strict=True)]
    found = splits(read(write(tmp_path, "\n".join(["path,split,labels", *rows]))))
    assert list(found.values()) == expected.split()


def test_eval_beside_validation_and_test_is_refused(tmp_path: Path) -> None:
    rows = ("a.wav,train,x", "b.wav,val,x", "c.wav,test,x", "d.wav,eval,x")
    with pytest.raises(FeatregError, match=r"line 5, column split: .*'eval'"):
        read(write(tmp_path, "\n".join(["path,split,labels", *rows])))


@pytest.mark.parametrize("names", [("train", "test"), ("dev", "eval")])
def test_validation_is_taken_from_train(tmp_path: Path, names: tuple[str, str]) -> None:
    _, rows = many(tmp_path, "path,split,labels", "{i}.wav,,{label}")
    rows = [row.replace(",,", f",{names[k % 4 == 0]},") for k, row in enumerate(rows)]
    path = write(tmp_path, "\n".join(["path,split,labels", *rows]))
    dataset = read(path)
    # A ninth of 42 or 43 clips of each of 7 classes is 5.
    assert Counter(clip.split for clip in dataset.clips) == {"train": 265, "valid": 35, "test": 100}
    for clip in dataset.clips:
        assert (clip.split == "test") == (int(clip.path.stem) % 4 == 0)
    assert "valid was taken from train" in dataset.understood[2]


def test_a_written_split_draws_its_group_along(tmp_path: Path) -> None:
    text = "path,split,song,labels\na.wav,test,s,x\nb.wav,,s,x\nc.wav,train,t,x\nd.wav,valid,u,x\n"
    assert splits(read(write(tmp_path, text), group="song"))["b.wav"] == "test"


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    text = "path,split,song,labels\na.wav,test,s,x\nb.wav,train,s,x\nc.wav,valid,t,x\n"
    with pytest.raises(FeatregError, match=r"song 's' .*train \(line 3\) and test \(line 2\)"):
        read(write(tmp_path, text), group="song")


def test_a_file_cut_into_splits_by_hand_has_no_place_for_another_excerpt(tmp_path: Path) -> None:
    text = "path,start_s,split,labels\na.wav,0,train,x\na.wav,5,valid,x\na.wav,9,,x\n"
    with pytest.raises(FeatregError, match=r"path 'a\.wav' .*valid \(line 3\) and train"):
        read(write(tmp_path, text))


# --- folds


def test_splits_are_made_from_folds(tmp_path: Path) -> None:
    path, _ = many(tmp_path, "path,fold,labels", "{i}.wav,fold{artist},{label}")
    clips = read(path).clips
    assert {clip.fold for clip in clips if clip.split == "valid"} == {38}
    assert {clip.fold for clip in clips if clip.split == "test"} == {39}


def test_folds_that_share_a_group_are_named(tmp_path: Path) -> None:
    text = "path,fold,song,labels\na.wav,1,s,x\nb.wav,2,s,x\nc.wav,3,t,x\nd.wav,2,u,x\n"
    with pytest.raises(FeatregError, match=r"song 's' in folds .*1 \(line 2\)"):
        read(write(tmp_path, text), group="song")


# --- stratified


def test_made_splits_are_stratified(tmp_path: Path) -> None:
    """A tenth of the 57 or 58 clips of each of 7 classes is 6."""
    path, _ = many(tmp_path, "path,labels", "{i}.wav,{label}")
    dataset = read(path)
    for split in ("valid", "test"):
        labels = [clip.label for clip in dataset.clips if clip.split == split]
        assert np.sum(labels, axis=0).tolist() == [6] * 7


def test_made_splits_depend_on_the_clips_and_the_seed_alone(tmp_path: Path) -> None:
    path, rows = many(tmp_path, "path,labels", "{i}.wav,{label}|z")
    first = splits(read(path))
    random.Random(0).shuffle(rows)
    assert splits(read(write(tmp_path, "\n".join(["path,labels", *rows])))) == first
    assert splits(read(path, split_seed=1)) != first
    assert splits(read(path, split_seed=1)) == splits(read(path, split_seed=1))


def test_made_splits_stay_as_they_are(tmp_path: Path) -> None:
    """Another order would move the clips of every user from one split to another."""
    rows = "".join(f"{name}.wav,x\n" for name in "abcdefghijklm")
    path = write(tmp_path, f"path,labels\n{rows}", audio="abcdefghijklm")
    made = splits(read(path)).values()
    assert list(made) == ["train"] * 11 + ["valid", "test"]


def test_rare_classes_reach_training_and_another_split(tmp_path: Path) -> None:
    """Of two clips one is tested, of three one is validated as well; a single one is trained."""
    _, rows = many(tmp_path, "path,labels", "{i}.wav,{label}", count=60)
    for k, name in enumerate(("one", "two", "two", "three", "three", "three")):
        rows[10 * k] = f"{10 * k}.wav,{name}"
    dataset = read(write(tmp_path, "\n".join(["path,labels", *rows])))
    found: dict[str, list[str]] = {}
    for clip in dataset.clips:
        found.setdefault(dataset.classes[int(clip.label.argmax())], []).append(clip.split)
    assert found["one"] == ["train"]
    assert sorted(found["two"]) == ["test", "train"]
    assert sorted(found["three"]) == ["test", "train", "valid"]
    assert "'one' in train only" in dataset.notes[0]


def test_groups_stay_together(tmp_path: Path) -> None:
    path, _ = many(tmp_path, "path,labels,artist", "{i}.wav,x,{artist}")
    dataset = read(path, group="artist")
    assert dataset.classes == ("x",)
    of_artist: dict[int, set[str]] = {}
    for clip in dataset.clips:
        of_artist.setdefault(int(clip.path.stem) // 10, set()).add(clip.split)
    assert len(of_artist) == 40
    assert all(len(found) == 1 for found in of_artist.values())
    assert shares_of(path, group="artist") == {"train": 320, "valid": 40, "test": 40}


def test_excerpts_of_one_file_stay_together(tmp_path: Path) -> None:
    _, rows = many(tmp_path, "path,start_s,labels", "{i}.wav,0,x")
    more = [row.replace(",0,", ",5,") for row in rows]
    dataset = read(write(tmp_path, "\n".join(["path,start_s,labels", *rows, *more])))
    found = splits(dataset)
    assert all(found[f"{i}.wav@0"] == found[f"{i}.wav@5"] for i in range(400))


def test_the_rest_of_a_partly_written_column_is_made(tmp_path: Path) -> None:
    path, rows = many(tmp_path, "path,split,labels", "{i}.wav,,{label}")
    rows[:40] = [row.replace(",,", ",test,") for row in rows[:40]]
    write(tmp_path, "\n".join(["path,split,labels", *rows]))
    found = splits(read(path))
    assert all(found[f"{i}.wav"] == "test" for i in range(40))
    # Within one clip for each of the seven classes.
    assert abs(Counter(found.values())["valid"] - 40) <= 7


def test_clips_without_labels_go_to_training(tmp_path: Path) -> None:
    path, rows = many(tmp_path, "path,labels", "{i}.wav,{label}")
    rows[:200] = [f"{i}.wav," for i in range(200)]
    write(tmp_path, "\n".join(["path,labels", *rows]))
    found = splits(read(path))
    assert {found[f"{i}.wav"] for i in range(200)} == {"train"}
    assert Counter(found.values())["test"] >= 20


# --- the algorithm


def test_groups_go_where_most_is_lacking() -> None:
    """By hand: targets are 8, 1 and 1 clips; ties go to the split with most lacking overall."""
    ones = np.ones((10, 1), np.int32)
    chosen = stratify(ones, np.ones(10, np.int32), SHARES, NONE_YET, np.zeros(3, np.int32))
    assert chosen.tolist() == [0] * 7 + [0, 1, 2]


def test_a_split_that_is_full_gets_nothing() -> None:
    ones = np.ones((8, 1), np.int32)
    present = np.array([[0], [2], [0]], np.int32)
    chosen = stratify(ones, np.ones(8, np.int32), SHARES, present, present[:, 0])
    assert Counter(chosen.tolist()) == {0: 7, 2: 1}


def test_a_split_with_share_zero_gets_nothing() -> None:
    some = np.array([[1, 0], [0, 1], [0, 0], [1, 1]] * 5, np.int32)
    none = np.zeros((3, 2), np.int32)
    chosen = stratify(some, np.ones(20, np.int32), (0.8, 0, 0.1), none, none[:, 0])
    assert {*chosen.tolist()} == {0, 2}


def test_many_classes_at_once_keep_their_shares() -> None:
    """Ten independent classes of about 100 clips; at random, 10 would vary by 3."""
    rng = np.random.default_rng(0)
    positives = (rng.random((1000, 10)) < 0.1).astype(np.int32)
    none = np.zeros((3, 10), np.int32)
    chosen = stratify(positives, np.ones(1000, np.int32), SHARES, none, none[:, 0])
    for split, share in enumerate(SHARES):
        counts = positives[chosen == split].sum(axis=0)
        assert np.abs(counts - share * positives.sum(axis=0)).max() <= 2
        assert abs(int((chosen == split).sum()) - 1000 * share) <= 10


@pytest.mark.slow
def test_a_large_list_is_read_in_ten_seconds(tmp_path: Path) -> None:
    for number in range(25_000):
        (tmp_path / f"{number}.wav").touch()
    names = [f"c{k}" for k in range(200)]
    rng = random.Random(0)
    rows = [f"{k}.wav;{','.join(rng.sample(names, 4))}" for k in range(25_000)]
    path = write(tmp_path, "\n".join(["file;tags", *rows]))
    start = time.process_time()
    assert len(read(path).clips) == 25_000
    assert time.process_time() - start < 10
