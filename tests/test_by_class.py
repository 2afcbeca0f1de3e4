"""Scores that need decisions: by class, the confusion matrix, thresholds, intervals by group."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_run, page_of
from sklearn.metrics import (
    balanced_accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
)
from synthetic import header, write_toy
from toy_runs import call

from featreg.train.config.config import Fold
from featreg.train.evaluation.bootstrap import bootstrap, draws, resampled
from featreg.train.evaluation.by_class import (
    UNCALIBRATED,
    best_thresholds,
    confusion,
    with_decisions,
)
from featreg.train.evaluation.metrics import METRICS, evaluate, per_class
from featreg.train.experiments.compare import load
from featreg.train.report.plots import confusions
from featreg.train.training.run_dir import RunDir

NAMES = ["a", "b", "c"]


def single(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and masks; two clips are not annotated."""
    rng = np.random.default_rng(seed)
    label = np.eye(3, dtype=np.uint8)[rng.integers(3, size=n)]
    probability = rng.dirichlet(np.ones(3), n) + 0.4 * label
    mask = np.ones_like(label)
    mask[:2] = 0
    return label, (probability / probability.sum(1, keepdims=True)).astype(np.float32), mask


def test_scores_by_class_are_scikit_learns() -> None:
    label, probability, mask = single()
    true, predicted = label[2:].argmax(1), probability[2:].argmax(1)
    expected = classification_report(true, predicted, output_dict=True, target_names=NAMES)
    rows = per_class(label, probability, mask, NAMES)
    for row in with_decisions(rows, label, probability, mask, "single-label"):
        one = expected[row.name]
        found = (row.precision, row.recall, row.f1, row.positives)
        assert found == pytest.approx(
            (one["precision"], one["recall"], one["f1-score"], one["support"])
        )
    assert confusion(label, probability, mask) == confusion_matrix(true, predicted).tolist()
    balanced = METRICS["balanced_accuracy"](label, probability, mask)
    assert balanced == pytest.approx(balanced_accuracy_score(true, predicted))


def test_balanced_accuracy_is_the_mean_recall() -> None:
    label = np.eye(3, dtype=np.uint8)[[0, 0, 0, 0, 1]]
    probability = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1]]
    assert METRICS["balanced_accuracy"](label, probability, np.ones_like(label)) == (0.75 + 1) / 2


def test_thresholds_have_the_highest_f1() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, (50, 3)).astype(np.uint8)
    probability = (0.3 * label + 0.5 * rng.random((50, 3))).astype(np.float32)
    mask = (rng.random((50, 3)) < 0.8).astype(np.uint8)
    for k, cut in enumerate(best_thresholds(label, probability, mask)):
        known = mask[:, k] > 0
        y, p = label[known, k], probability[known, k]
        best = max(f1_score(y, p >= each) for each in np.unique(p))
        assert f1_score(y, p >= cut) == pytest.approx(best)
        assert cut not in p


def test_a_threshold_lies_between_the_classes() -> None:
    label = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], np.uint8)
    probability = np.array([[0.1, 0.1], [0.2, 0.2], [0.6, 0.3], [0.9, 0.4]])
    assert best_thresholds(label, probability, np.ones_like(label)) == pytest.approx(
        [0.4, UNCALIBRATED]
    )


def test_decisions_of_several_classes_use_their_thresholds() -> None:
    label = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], np.uint8)
    probability = np.array([[0.3, 0.9], [0.1, 0.8], [0.2, 0.1], [0.0, 0.7]])
    mask = np.ones_like(label)
    mask[3, 1] = 0
    rows = per_class(label, probability, mask, NAMES[:2])
    a, b = with_decisions(rows, label, probability, mask, "multi-label", [0.15, 0.5])
    assert (a.precision, a.recall, a.f1) == (0.5, 0.5, 0.5)
    assert (b.precision, b.recall) == (0.5, 1)
    assert with_decisions(rows, label, probability, mask, "multi-label") == rows


def test_groups_are_drawn_as_a_whole() -> None:
    groups = np.array(["x", "y", "x", "z", "y"])
    counts = draws(5, 200, 0, groups)
    assert (counts[0] == counts[2]).all()
    assert (counts[1] == counts[4]).all()
    assert (counts[[0, 1, 3]].sum(0) == 3).all()
    assert (draws(5, 200, 0, np.arange(5)) == draws(5, 200, 0)).all()


def test_resampled_balanced_accuracy_is_that_of_the_drawn_clips() -> None:
    label, probability, mask = single(20)
    counts = draws(20, 5)
    values = resampled(label, probability, mask, counts, "single-label")["balanced_accuracy"]
    for value, count in zip(values, counts.T, strict=True):
        drawn = np.repeat(np.arange(20), count)
        expected = METRICS["balanced_accuracy"](label[drawn], probability[drawn], mask[drawn])
        assert value == pytest.approx(expected)


def test_clips_that_repeat_widen_the_interval_by_group() -> None:
    label, probability, mask = (np.repeat(each, 10, axis=0) for each in single(40))
    values = evaluate(label, probability, mask, NAMES, "single-label").values
    by_clip, by_group = (
        bootstrap(label, probability, mask, "single-label", values, 300, groups=groups)["accuracy"]
        for groups in (None, np.repeat(np.arange(40), 10))
    )
    ratio = (by_group.high - by_group.low) / (by_clip.high - by_clip.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.2)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_a_run_and_its_evaluation(task: str, tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(task=task))
    assert call(tmp_path, "probe", "--features", "noise").exit_code == 0
    run = RunDir(tmp_path / "runs" / "toy-probe-noise-s0")
    report = run.read_json("report.json")
    rows = pd.DataFrame(report["classes"])
    assert rows[["precision", "recall", "f1"]].notna().all(axis=None)
    table = pd.read_csv(run.path / "predictions.csv", index_col="clip_id")
    truth = table[[f"true:{name}" for name in ("low", "middle", "high")]]
    assert truth.sum().tolist() == rows["positives"].tolist()
    if task == "single-label":
        assert np.array(report["confusion"]).sum() == 9
    else:
        assert set(report["thresholds"]) == {"low", "middle", "high"}
        found = table[["low", "middle", "high"]].to_numpy()
        cuts = np.array(list(report["thresholds"].values()))
        expected = f1_score(truth.to_numpy(), found >= cuts, average=None, zero_division=0)
        assert rows["f1"].tolist() == pytest.approx(expected.tolist())
    shown = call(tmp_path, "eval")
    assert shown.exit_code == 0, shown.output
    assert ("true class" in shown.output) == (task == "single-label")
    exact = json.loads(call(tmp_path, "eval", "--format", "json").stdout)
    assert exact["classes"] == report["classes"]
    assert exact["intervals"] == report["intervals"]
    groups = tmp_path / "groups.csv"
    clips = pd.read_csv(tmp_path / "toy" / "clips.csv")["clip_id"]
    pd.DataFrame({"clip_id": clips, "g": np.arange(len(clips)) // 3}).to_csv(groups, index=False)
    grouped = call(tmp_path, "eval", "--format", "json", "--group", f"{groups}:g")
    assert json.loads(grouped.stdout)["intervals"] != report["intervals"]
    wrong = call(tmp_path, "eval", "--group", "singer")
    assert wrong.exit_code == 2
    assert "singer" in wrong.output


def test_the_table_of_the_report_has_intervals(tmp_path: Path) -> None:
    for fold, value in ((1, 0.4), (2, 0.6)):
        for seed in (0, 1):
            made_up_run(tmp_path, seed, value, fold=Fold(fold))
    (found,), _ = load(tmp_path, [], None)
    # The made-up folds have the same clips, hence one test set: their intervals are averaged.
    assert found.interval("pr_auc") == pytest.approx((0.4, 0.6))
    for result in found.results:
        result.test_set = str(result.config.fold)
    half = np.hypot(0.1, 0.1) / 2
    assert found.interval("pr_auc") == pytest.approx((0.5 - half, 0.5 + half))
    made_up_run(tmp_path, 0, 0.45)
    assert "0.450 (0.350 to 0.550)" in page_of(tmp_path)
    for name in ("curves", "classes", "embeddings"):
        for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
            assert (tmp_path / f"page-{name}.{kind}").read_bytes().startswith(start)


def test_the_report_shows_the_confusion_of_a_single_label_task() -> None:
    counts = [[3, 1], [0, 0]]
    run = SimpleNamespace(
        about={"data": {"classes": ["cat", "dog"]}}, report={"confusion": counts, "test": {}}
    )
    figure = confusions([SimpleNamespace(label="baseline", results=[run, run])])  # type: ignore[list-item]
    (axes,) = figure.axes
    shown = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "75", (1, 0): "25"}  # (column, row), percent of 6 and 2 of 8 clips
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
