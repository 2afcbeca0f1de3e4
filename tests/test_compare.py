"""Comparison of runs: groups over seeds, labels, and sentences on differences."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import CONREG, made_up_run, make_up_runs, on_other_data, page_of, rewrite_report

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.config.presets import ALPHAS, PRESETS
from featreg.train.experiments.compare import (
    Result,
    common,
    load,
    spread,
    table,
)
from featreg.train.experiments.differences import alphas, differences
from featreg.train.training.run_dir import RunDir


@pytest.fixture
def work(tmp_path: Path) -> Path:
    make_up_runs(tmp_path)
    return tmp_path


def test_seeds_are_one_row_and_the_baseline_comes_first(work: Path) -> None:
    rows = table(load(work, [], None)[0])
    assert rows["method"].tolist() == ["baseline", "Con-Reg (musicnn, alpha 0.3)"]
    assert rows["seeds"].tolist() == [2, 2]
    assert rows["parameters without extractors"].tolist() == ["1,000", "1,000"]
    # 0.5 and 0.6: mean 0.55, sample deviation 0.1 / sqrt(2).
    assert rows["test macro PR-AUC"].tolist() == ["0.550 ± 0.071", "0.660 ± 0.085"]


def test_clip_ids_may_look_like_missing_values(work: Path) -> None:
    run = RunDir(work / "runs" / "demo-baseline-s0")
    path = run.path / "predictions.csv"
    path.write_text(path.read_text().replace("\nc0,", "\nNA,").replace("\nc1,", "\nnull,"))
    rewrite_report(run)
    found = Result(run).predictions()
    assert found.index.tolist()[:3] == ["NA", "null", "c2"]
    assert set(found.dtypes) == {np.dtype(float)}


def test_one_seed_has_no_spread() -> None:
    assert spread([0.5]) == "0.500"


def test_differences_are_paired_by_seed(work: Path) -> None:
    [sentence] = differences(load(work, [], None)[0])
    assert "Con-Reg (musicnn, alpha 0.3) is 0.110 better than baseline in macro PR-AUC" in sentence
    assert "each of 2 seeds" in sentence


def test_a_loss_with_one_seed_is_reported_as_such(work: Path) -> None:
    made_up_run(work, 0, 0.3, **{**CONREG, "alpha": 5.0})
    [sentence] = [each for each in differences(load(work, [], None)[0]) if "alpha 5" in each]
    assert "alpha 5) is 0.200 worse than baseline in macro PR-AUC" in sentence
    assert "one seed" in sentence


@pytest.mark.parametrize("seeds", [1, 2])
def test_equal_results_are_no_difference(tmp_path: Path, seeds: int) -> None:
    for seed in range(seeds):
        made_up_run(tmp_path, seed, 0.5)
        made_up_run(tmp_path, seed, 0.5, **CONREG)
    [sentence] = differences(load(tmp_path, [], None)[0])
    assert "do not differ in macro PR-AUC" in sentence
    assert "better" not in sentence


def test_a_difference_of_changing_sign_is_not_clear(tmp_path: Path) -> None:
    for seed, plain, regularized in ((0, 0.5, 0.6), (1, 0.6, 0.55)):
        made_up_run(tmp_path, seed, plain)
        made_up_run(tmp_path, seed, regularized, **CONREG)
    [sentence] = differences(load(tmp_path, [], None)[0])
    assert "no clear difference" in sentence


def test_a_fraction_of_the_clips_has_its_own_baseline(work: Path) -> None:
    made_up_run(work, 0, 0.2, fraction=0.1)
    made_up_run(work, 0, 0.3, fraction=0.1, **CONREG)
    made_up_run(work, 0, 0.4, fraction=0.5, **CONREG)
    sentences = differences(load(work, [], None)[0])
    [same] = [each for each in sentences if "0.1)" in each]
    assert "alpha 0.3, fraction 0.1) is 0.100 better than baseline (fraction 0.1) in" in same
    [alone] = [each for each in sentences if "0.5)" in each]
    assert "no baseline" in alone


def test_standardized_features_are_compared_with_the_baseline(tmp_path: Path) -> None:
    made_up_run(tmp_path, 0, 0.5)
    recipe = dataclasses.replace(PRESETS["demo"], feature_norm="standardize")
    made_up_run(tmp_path, 0, 0.6, recipe=recipe, **CONREG)
    [sentence] = differences(load(tmp_path, [], None)[0])
    assert "0.100 better than baseline" in sentence


def test_settings_that_all_runs_share_are_not_in_labels(tmp_path: Path) -> None:
    for changes in ({}, CONREG):
        made_up_run(tmp_path, 0, 0.5, preset="demo-small", recipe=PRESETS["demo-small"], **changes)
    groups = load(tmp_path, [], None)[0]
    assert [each.label for each in groups] == ["baseline", "Con-Reg (musicnn, alpha 0.3)"]
    assert common(groups) == ["preset demo-small"]


def test_a_run_that_is_named_twice_counts_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work / "runs" / "demo-baseline-s0")
    [group] = load(work, ["demo-baseline-s0", ".", "demo-baseline-s1"], None)[0]
    assert [result.folder.name for result in group.results] == [
        "demo-baseline-s0",
        "demo-baseline-s1",
    ]


def test_a_seed_counts_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied_run(work, "demo-baseline-s1", "again")
    warnings: list[str] = []
    monkeypatch.setattr("featreg.train.experiments.compare.warn", warnings.append)
    [baseline, _] = load(work, [], None)[0]
    assert [result.folder.name for result in baseline.results] == [
        "demo-baseline-s0",
        "demo-baseline-s1",
    ]
    [warning] = warnings
    assert "again repeats demo-baseline-s1" in warning
    assert table([baseline])["seeds"].tolist() == [2]


def test_runs_on_other_data_are_another_group(work: Path) -> None:
    on_other_data(RunDir(work / "runs" / "demo-baseline-s1"), np.arange(40)[::-1])
    groups = load(work, [], None)[0]
    assert [each.label for each in groups] == [
        "baseline, shards 01234567",
        "baseline, shards other",
        "Con-Reg (musicnn, alpha 0.3)",
    ]
    assert len({each.test_set for each in groups}) == 1  # the same clips, in another order
    assert "test set" not in table(groups)


def copied_run(work: Path, name: str, target: str, **changes: Any) -> RunDir:
    """A run that differs from another in parts of its configuration."""
    run = RunDir(work / "runs" / target)
    shutil.copytree(work / "runs" / name, run.path)
    about = run.read_json("config.json")
    recipe = about["config"]["recipe"] | changes.pop("recipe", {})
    about["config"] |= {**changes, "recipe": recipe}
    run.write_json("config.json", about)
    return run


def test_equal_labels_are_extended_by_what_differs(work: Path) -> None:
    first = "demo-baseline-s0"
    copied_run(work, first, "by-roc", metric="roc_auc")
    copied_run(work, first, "exact", recipe={"precision": "float32"})
    copied_run(work, "demo-conreg-musicnn-a0.3-s0", "close", alpha=0.3000001)
    report = RunDir(work / "runs" / "by-roc").read_json("report.json")
    report["valid"] = {"roc_auc": 0.8}
    RunDir(work / "runs" / "by-roc").write_json("report.json", report)
    groups = load(work, [], None)[0]
    assert [each.label for each in groups] == [
        "baseline, selected by macro PR-AUC, in auto",
        "baseline, selected by macro PR-AUC, in float32",
        "baseline, selected by macro ROC-AUC, in auto",
        "Con-Reg (musicnn, alpha 0.3), as close",
        "Con-Reg (musicnn, alpha 0.3), as demo-conreg-musicnn-a0.3-s0",
    ]
    rows = table(groups)
    assert rows["valid macro ROC-AUC"].tolist() == ["–", "–", "0.800", "–", "–"]
    assert rows["valid macro PR-AUC"].tolist()[2] == "–"
    page = page_of(work)
    assert "best macro PR-AUC or macro ROC-AUC (each run&#39;s --metric)" in page
    assert page.count(" on the test split: banjo.") == 2
    assert "nan" not in page.split("All runs on the test split")[1].split("</table>")[0]


def test_equal_labels_of_different_aligned_sets_name_the_sets(work: Path) -> None:
    run = copied_run(work, "demo-baseline-s0", "other-set", aligned="other-0.1s")
    on_other_data(run, np.arange(40))
    assert [each.label for each in load(work, [], None)[0]][:2] == [
        "baseline, aligned as musicnn-0.1s",
        "baseline, aligned as other-0.1s",
    ]


def test_unfinished_runs_are_skipped_or_named(work: Path) -> None:
    (work / "runs" / "demo-baseline-s1" / "report.json").unlink()
    assert [len(each.results) for each in load(work, [], None)[0]] == [1, 2]
    with pytest.raises(FeatregError, match="not finished"):
        load(work, ["demo-baseline-s1"], None)


def test_runs_on_two_datasets_need_a_choice(work: Path) -> None:
    made_up_run(work, 0, 0.5, dataset="mtat", preset="mtat", recipe=PRESETS["mtat"])
    with pytest.raises(UsageError, match="demo, mtat"):
        load(work, [], None)
    assert len(load(work, [], "mtat")[0]) == 1


def test_the_origin_of_a_presets_alpha_is_reported(tmp_path: Path) -> None:
    chosen = ALPHAS["demo"]["conreg"]
    for alpha in (chosen, chosen + 1):
        made_up_run(tmp_path, 0, 0.5, **{**CONREG, "alpha": alpha})
    [sentence] = alphas(load(tmp_path, [], None)[0])
    assert f"alpha {chosen:g} of Con-Reg" in sentence
    assert "validation split" in sentence
