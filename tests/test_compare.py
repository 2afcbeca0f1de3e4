"""Runs side by side: groups over seeds, what is said of them, and the page."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up import CONREG, made_up_run

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.cli import train
from featreg.train.compare import alphas, common, differences, load, spread, table
from featreg.train.presets import ALPHAS, PRESETS


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for seed, plain, regularized in ((0, 0.5, 0.6), (1, 0.6, 0.72)):
        made_up_run(tmp_path, seed, plain)
        made_up_run(tmp_path, seed, regularized, **CONREG)
    return tmp_path


def test_seeds_are_one_row_and_the_baseline_comes_first(work: Path) -> None:
    rows = table(load(work, [], None))
    assert rows["method"].tolist() == ["baseline", "Con-Reg (musicnn, alpha 0.3)"]
    assert rows["seeds"].tolist() == [2, 2]
    # 0.5 and 0.6: mean 0.55, sample deviation 0.1 / sqrt(2).
    assert rows["test macro PR-AUC"].tolist() == ["0.550 ± 0.071", "0.660 ± 0.085"]


def test_one_seed_has_no_spread() -> None:
    assert spread([0.5]) == "0.500"


def test_gains_are_counted_seed_by_seed(work: Path) -> None:
    [sentence] = differences(load(work, [], None))
    assert sentence == (
        "Con-Reg (musicnn, alpha 0.3) is 0.110 better than baseline in macro PR-AUC, and better "
        "on each of 2 seeds."
    )


def test_harm_is_said(work: Path) -> None:
    made_up_run(work, 0, 0.3, **{**CONREG, "alpha": 5.0})
    [sentence] = [each for each in differences(load(work, [], None)) if "alpha 5" in each]
    assert sentence == (
        "Con-Reg (musicnn, alpha 5) is 0.200 worse than baseline in macro PR-AUC, on one seed: "
        "that is no evidence yet."
    )


def test_a_difference_that_seeds_do_not_agree_on_is_none(tmp_path: Path) -> None:
    for seed, plain, regularized in ((0, 0.5, 0.6), (1, 0.6, 0.55)):
        made_up_run(tmp_path, seed, plain)
        made_up_run(tmp_path, seed, regularized, **CONREG)
    [sentence] = differences(load(tmp_path, [], None))
    assert "no clear difference" in sentence


def test_a_smaller_share_of_clips_has_its_own_baseline(work: Path) -> None:
    made_up_run(work, 0, 0.2, fraction=0.1)
    made_up_run(work, 0, 0.3, fraction=0.1, **CONREG)
    made_up_run(work, 0, 0.4, fraction=0.5, **CONREG)
    sentences = differences(load(work, [], None))
    [same] = [each for each in sentences if "0.1)" in each]
    assert same == (
        "Con-Reg (musicnn, alpha 0.3, fraction 0.1) is 0.100 better than baseline (fraction 0.1) "
        "in macro PR-AUC, on one seed: that is no evidence yet."
    )
    [alone] = [each for each in sentences if "0.5)" in each]
    assert "no baseline with its recipe and its clips" in alone


def test_standardized_features_have_the_plain_baseline(tmp_path: Path) -> None:
    made_up_run(tmp_path, 0, 0.5)
    recipe = dataclasses.replace(PRESETS["demo"], standardize=True)
    made_up_run(tmp_path, 0, 0.6, recipe=recipe, **CONREG)
    [sentence] = differences(load(tmp_path, [], None))
    assert "0.100 better than baseline" in sentence


def test_what_all_runs_share_is_said_once(tmp_path: Path) -> None:
    for changes in ({}, CONREG):
        made_up_run(tmp_path, 0, 0.5, preset="demo-small", recipe=PRESETS["demo-small"], **changes)
    groups = load(tmp_path, [], None)
    assert [each.label for each in groups] == ["baseline", "Con-Reg (musicnn, alpha 0.3)"]
    assert common(groups) == ["preset demo-small"]


def test_runs_on_other_data_are_another_group(work: Path) -> None:
    path = work / "runs" / "demo-baseline-s1" / "config.json"
    about = json.loads(path.read_text())
    about["data"]["fingerprint"] = "other"
    path.write_text(json.dumps(about))
    assert len(load(work, [], None)) == 3


def test_unfinished_runs_are_left_out_or_named(work: Path) -> None:
    (work / "runs" / "demo-baseline-s1" / "report.json").unlink()
    assert [len(each.results) for each in load(work, [], None)] == [1, 2]
    with pytest.raises(FeatregError, match="not finished"):
        load(work, ["demo-baseline-s1"], None)


def test_runs_of_two_datasets_are_asked_about(work: Path) -> None:
    made_up_run(work, 0, 0.5, dataset="mtat", preset="mtat", recipe=PRESETS["mtat"])
    with pytest.raises(UsageError, match="demo, mtat"):
        load(work, [], None)
    assert len(load(work, [], "mtat")) == 1


def test_the_report_needs_nothing_else(work: Path) -> None:
    result = CliRunner().invoke(train, ["compare", "--work", str(work)])
    assert result.exit_code == 0, result.output
    assert "0.550 ± 0.071" in result.output
    assert result.output.count("Notes are <b>escaped</b>.") == 1
    page = (work / "reports" / "demo.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "better on each of 2 seeds" in page
    assert "train run --reg none" in page
    assert "train run --dataset demo --aligned musicnn-0.1s --reg conreg" in page
    assert "0123456789abcdef" in page
    assert "have the class: banjo" in page
    assert "Notes are &lt;b&gt;escaped" in page


def test_an_alpha_chosen_on_validation_is_said_to_be(tmp_path: Path) -> None:
    chosen = ALPHAS["demo"]["conreg"]
    for alpha in (chosen, chosen + 1):
        made_up_run(tmp_path, 0, 0.5, **{**CONREG, "alpha": alpha})
    [sentence] = alphas(load(tmp_path, [], None))
    assert f"alpha {chosen:g} of Con-Reg" in sentence
    assert "chosen on the validation split" in sentence


def test_a_report_can_go_elsewhere(work: Path) -> None:
    target = work / "elsewhere.html"
    names = ["demo-baseline-s0", str(work / "runs" / "demo-baseline-s1")]
    arguments = ["compare", *names, "--report", str(target), "--work", str(work)]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert target.is_file()
