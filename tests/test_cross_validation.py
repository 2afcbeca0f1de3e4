"""Folds: how they are made, which clips each tests, and cross-validation as it is typed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import CONREG, made_up_run
from synthetic import header, write_toy
from test_probe import clips
from toy_runs import CONREG as NETWORK
from toy_runs import call

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections import esc50, urbansound8k
from featreg.datasets.shards.workdir import DatasetDir
from featreg.train.config.config import Config, Fold
from featreg.train.data.aligned_set import Clips
from featreg.train.data.folds import _check_groups, _rare_classes, make_folds, split_by_fold
from featreg.train.data.groups import read_groups
from featreg.train.experiments.compare import load, table
from featreg.train.experiments.differences import differences
from featreg.train.training.run_dir import RunDir

NAME = "toy-probe-tones+noise-fold{}-of4-s0"


def single(n: int, classes: int = 4, seed: int = 0) -> Clips:
    label = np.eye(classes)[np.random.default_rng(seed).integers(classes, size=n)]
    return clips(label, np.ones_like(label))


def names(*numbers: Any) -> np.ndarray:
    return np.array([f"g{number}" for number in numbers])


@pytest.mark.parametrize("size", [1, 3])
def test_folds_are_grouped_and_stratified(size: int) -> None:
    found = single(600)
    groups = names(*np.arange(600) // size)
    folds = make_folds(found, 5, groups, 0)
    assert set(folds) == {1, 2, 3, 4, 5}
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    shares = np.stack([found.label[folds == k].mean(0) for k in range(1, 6)])
    assert np.abs(shares - found.label.mean(0)).max() < 0.01 * size


def test_folds_are_determined_by_the_seed() -> None:
    found, groups = single(60), names(*range(60))
    one, again, other = (make_folds(found, 3, groups, seed) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_clips_of_several_classes_are_stratified_by_the_rarest() -> None:
    label = np.ones((40, 2))
    label[5:, 1] = 0
    folds = make_folds(clips(label, np.ones_like(label)), 5, names(*range(40)), 0)
    assert sorted(folds[:5]) == [1, 2, 3, 4, 5]


def test_clips_without_labels_follow_their_group_and_only_train() -> None:
    mask = np.ones((8, 1))
    mask[6:] = 0
    found = clips(mask, mask)
    folds = make_folds(found, 3, names(0, 1, 2, 3, 4, 5, 0, "new"), 0)
    assert folds[6] == folds[0]
    assert folds[7] == -1
    split = split_by_fold(replace(found, fold=folds), int(folds[0]))
    assert split[0] == "test"
    assert split[6:].tolist() == ["unused", "train"]


@pytest.mark.parametrize(("count", "groups"), [(2, 40), (5, 4)])
def test_too_few_folds_or_groups_are_refused(count: int, groups: int) -> None:
    with pytest.raises(UsageError, match=f"--folds {count}"):
        make_folds(single(40), count, names(*np.arange(40) % groups), 0)


def test_the_fold_before_the_tested_one_validates() -> None:
    found = replace(single(6), fold=np.array([2, 4, 7, 9, 9, -1]))
    expected = {
        4: ["valid", "test", "train", "train", "train", "train"],
        2: ["test", "train", "train", "valid", "valid", "train"],
    }
    for tested, split in expected.items():
        assert split_by_fold(found, tested).tolist() == split
    with pytest.raises(UsageError, match=r"--fold 3.*2, 4, 7, 9"):
        split_by_fold(found, 3)
    with pytest.raises(UsageError, match="2, 4"):
        split_by_fold(found.take(np.arange(2)), 2)


@pytest.mark.parametrize("module", [urbansound8k, esc50])
def test_the_last_published_fold_gives_the_default_split(module: Any) -> None:
    folds = np.array(module.FOLDS)
    found = replace(single(len(folds)), fold=folds)
    default = [module.SPLIT_OF.get(fold, "train") for fold in folds]
    assert split_by_fold(found, int(folds.max())).tolist() == default


def test_a_group_in_two_folds_is_named() -> None:
    groups = np.array(["=anna", "=bob", "=anna"])
    with pytest.raises(FeatregError, match=r"--group singer.*'anna'.*folds 1 and 2"):
        _check_groups(np.array([1, 1, 2]), groups, "singer")
    _check_groups(np.array([1, 1, -1]), groups, "singer")


def test_a_class_in_one_fold_only_is_named() -> None:
    label = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    found = replace(clips(label, np.ones_like(label)), fold=np.array([1, 2, 3, 3]))
    (note,) = _rare_classes(found, ("dog", "siren"))
    assert "siren (fold 3)" in note
    assert "dog" not in note


def test_twenty_five_thousand_clips_are_divided_in_seconds() -> None:
    found = single(25_000, 50)
    for size in (1, 3):
        start = time.process_time()
        make_folds(found, 10, names(*np.arange(25_000) // size), 0)
        assert time.process_time() - start < 10


def test_groups_are_read_from_any_csv(tmp_path: Path) -> None:
    write_toy(tmp_path)
    folder = DatasetDir(tmp_path / "toy")
    ids = np.array(["test-00000-0", "test-00000-1", "test-00000-2"])
    assert len(set(read_groups("path", folder, ids))) == 3
    other = tmp_path / "who.csv"
    other.write_text("clip_id,singer\ntest-00000-0,anna\ntest-00000-1,anna\ntest-00000-2,\n")
    groups = read_groups(f"{other}:singer", folder, ids)
    assert groups[0] == groups[1] != groups[2]
    for wanted, facts in (
        ("artist", "column 'artist'.*clip_id, path"),
        (f"{tmp_path}/none.csv:a", "none.csv"),
        (f"{other}:singer", "1 of 4 clips.*test-00000-3"),
    ):
        with pytest.raises(UsageError, match=facts):
            read_groups(wanted, folder, np.append(ids, "test-00000-3"))


def test_a_configuration_with_a_fold_round_trips() -> None:
    config = replace(NETWORK, fold=Fold(3, 5, 1), group="artist")
    assert Config.from_json(config.to_json()) == config
    assert "-fold3-of5-foldseed1" in config.run_name
    plain = replace(config, fold=None, group="")
    assert not {"fold", "group", "probe"} & plain.to_json().keys()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    about = header(task="single-label")
    write_toy(folder, {"train": (24,), "valid": (8,), "test": (8,)}, about=about)
    result = call(folder, "cross-validate", "--probe", "--folds", "4")
    assert result.exit_code == 0, result.output
    return folder


def test_every_clip_is_tested_once(work: Path) -> None:
    tested = [
        pd.read_csv(work / "runs" / NAME.format(fold) / "predictions.csv")["clip_id"]
        for fold in range(1, 5)
    ]
    assert [len(each) for each in tested] == [10] * 4
    assert pd.concat(tested).nunique() == 40
    counts = RunDir(work / "runs" / NAME.format(1)).read_json("config.json")["data"]["clips"]
    assert counts == {"train": 20, "valid": 10, "test": 10}
    rows = pd.read_csv(work / "reports" / "cross-validation-toy-probe-tones+noise-of4.csv")
    assert rows["fold"].tolist() == ["1", "2", "3", "4", "mean"]
    assert rows["test clips"].tolist() == [10] * 4 + [40]


def test_a_cross_validation_resumes(work: Path) -> None:
    kept = work / "runs" / NAME.format(1) / "report.json"
    before = kept.stat().st_mtime_ns
    (work / "runs" / NAME.format(2) / "report.json").unlink()
    result = call(work, "cross-validate", "--probe", "--folds", "4")
    assert result.exit_code == 0, result.output
    assert "4 runs: 3 finished, 1 to do" in result.output
    assert kept.stat().st_mtime_ns == before


def test_one_fold_is_the_same_run(work: Path) -> None:
    result = call(work, "probe", "--fold", "3", "--folds", "4")
    assert result.exit_code == 0, result.output
    assert "already finished" in result.output
    evaluated = call(work, "eval", NAME.format(3), "--split", "valid")
    assert evaluated.exit_code == 0, evaluated.output
    assert "10 valid clips" in evaluated.output


def test_a_network_takes_a_fold(work: Path) -> None:
    small = (
        "--encoder",
        "mel_cnn",
        "--width",
        "2",
        "--crop",
        "1",
        "--epochs",
        "1",
        "--chunks",
        "2",
    )
    options = ("--fold", "2", "--folds", "4", "--run-name", "network", *small)
    assert call(work, "run", *options).exit_code == 0
    probe, network = (
        pd.read_csv(work / "runs" / name / "predictions.csv")["clip_id"].tolist()
        for name in (NAME.format(2), "network")
    )
    assert probe == network


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("probe", "--fold", "5", "--folds", "4"), ["--fold 5", "1, 2, 3, 4"]),
        (("probe", "--fold", "1"), ["no folds", "--folds"]),
        (("probe", "--folds", "4"), ["--folds 4", "--fold 1"]),
        (("probe", "--fold", "1", "--folds", "50"), ["--folds 50", "40 groups"]),
        (("probe", "--fold", "1", "--folds", "4", "--group", "artist"), ["artist"]),
        (("cross-validate",), ["no folds", "--folds"]),
        (("cross-validate", "--probe", "--reg", "hint", "--folds", "4"), ["--reg"]),
        (("cross-validate", "--mlp", "--folds", "4"), ["--probe"]),
    ],
)
def test_wrong_folds_are_named(work: Path, arguments: tuple[str, ...], facts: list[str]) -> None:
    result = call(work, *arguments)
    assert result.exit_code == 2, result.output
    for fact in facts:
        assert fact in result.output


def test_other_groups_make_another_run(work: Path, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    ids = pd.read_csv(work / "toy" / "clips.csv")["clip_id"]
    pd.DataFrame({"clip_id": ids, "g": np.arange(40) // 4}).to_csv(file, index=False)
    options = (
        "probe",
        "--fold",
        "1",
        "--folds",
        "4",
        "--group",
        f"{file}:g",
        "--run-name",
        "grouped",
    )
    assert call(work, *options).exit_code == 0
    pd.DataFrame({"clip_id": ids, "g": np.arange(40)}).to_csv(file, index=False)
    result = call(work, *options)
    assert result.exit_code == 2
    assert "grouped" in result.output


def test_a_fold_is_not_a_seed(tmp_path: Path) -> None:
    for fold, low, high in ((1, 0.4, 0.5), (2, 0.6, 0.8)):
        for seed, more in ((0, 0.0), (1, 0.1)):
            made_up_run(tmp_path, seed, low + more, fold=Fold(fold))
            made_up_run(tmp_path, seed, high + more, fold=Fold(fold), **CONREG)
    (baseline, conreg), _ = load(tmp_path, [], None)
    assert (baseline.label, conreg.label) == ("baseline", "Con-Reg (musicnn, alpha 0.3)")
    assert baseline.folds == [1, 2]
    assert baseline.samples("pr_auc") == pytest.approx([0.45, 0.65])
    rows = table([baseline, conreg])
    assert rows["folds"].tolist() == [2, 2]
    assert rows["seeds"].tolist() == [2, 2]
    spread = np.std([0.45, 0.65], ddof=1)
    assert rows["test macro PR-AUC"][0].startswith(f"0.550 ± {spread:.3f}")
    (sentence,) = differences([baseline, conreg])
    assert "0.150 better" in sentence
    assert "2 folds" in sentence
    result = call(tmp_path, "compare")
    assert result.exit_code == 0, result.output
    assert "fold 2, seed 1" in (tmp_path / "reports" / "demo.html").read_text()
