"""Runs side by side: groups over seeds, what is said of them, and the page."""

from __future__ import annotations

import base64
import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import CLASSES, CONREG, made_up_run

from featreg.datasets.base import FeatregError, UsageError
from featreg.train import ablate, params, plots, table1
from featreg.train.cli import train
from featreg.train.compare import Result, alphas, common, differences, load, spread, table
from featreg.train.many import Runner
from featreg.train.presets import ALPHAS, PRESETS
from featreg.train.runs import RunDir


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
    assert rows["parameters without extractors"].tolist() == ["1,000", "1,000"]
    # 0.5 and 0.6: mean 0.55, sample deviation 0.1 / sqrt(2).
    assert rows["test macro PR-AUC"].tolist() == ["0.550 ± 0.071", "0.660 ± 0.085"]


def test_clips_may_be_called_as_nothing_is(work: Path) -> None:
    run = RunDir(work / "runs" / "demo-baseline-s0")
    path = run.path / "predictions.csv"
    path.write_text(path.read_text().replace("\nc0,", "\nNA,").replace("\nc1,", "\nnull,"))
    found = Result(run).predictions()
    assert found.index.tolist()[:3] == ["NA", "null", "c2"]
    assert set(found.dtypes) == {np.dtype(float)}


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


def on_other_data(run: RunDir, keep: np.ndarray, classes: list[str] = CLASSES) -> None:
    """Change a run's data to those of its test clips at `keep`."""
    about = run.read_json("config.json")
    about["data"] |= {"fingerprint": "other", "classes": classes}
    run.write_json("config.json", about)
    arrays = Result(run).embeddings()
    np.savez(run.path / "embeddings.npz", **{name: each[keep] for name, each in arrays.items()})
    report = run.read_json("report.json")
    for row, name in zip(report["classes"], classes, strict=True):
        row["name"] = name
    run.write_json("report.json", report)


def test_a_run_that_is_named_twice_counts_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work / "runs" / "demo-baseline-s0")
    [group] = load(work, ["demo-baseline-s0", ".", "demo-baseline-s1"], None)
    assert [result.folder.name for result in group.results] == [
        "demo-baseline-s0",
        "demo-baseline-s1",
    ]


def test_a_seed_counts_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied_run(work, "demo-baseline-s1", "again")
    said: list[str] = []
    monkeypatch.setattr("featreg.train.compare.warn", said.append)
    [baseline, _] = load(work, [], None)
    assert [result.folder.name for result in baseline.results] == [
        "demo-baseline-s0",
        "demo-baseline-s1",
    ]
    assert said == ["again repeats demo-baseline-s1, and is left out"]
    assert table([baseline])["seeds"].tolist() == [2]


def test_runs_on_other_data_are_another_group(work: Path) -> None:
    on_other_data(RunDir(work / "runs" / "demo-baseline-s1"), np.arange(40)[::-1])
    groups = load(work, [], None)
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


def test_equal_labels_say_what_differs_and_no_more(work: Path) -> None:
    first = "demo-baseline-s0"
    copied_run(work, first, "by-roc", metric="roc_auc")
    copied_run(work, first, "exact", recipe={"precision": "float32"})
    copied_run(work, "demo-conreg-musicnn-a0.3-s0", "close", alpha=0.3000001)
    report = RunDir(work / "runs" / "by-roc").read_json("report.json")
    report["valid"] = {"roc_auc": 0.8}
    RunDir(work / "runs" / "by-roc").write_json("report.json", report)
    groups = load(work, [], None)
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
    assert "the best macro PR-AUC or macro ROC-AUC (each run&#39;s --metric) on the" in page
    assert page.count(" for want of test clips that have the class: banjo.") == 2
    assert "nan" not in page.split("Every run, on the test split")[1].split("</table>")[0]


def test_equal_labels_of_other_sets_name_the_sets(work: Path) -> None:
    run = copied_run(work, "demo-baseline-s0", "other-set", aligned="other-0.1s")
    on_other_data(run, np.arange(40))
    assert [each.label for each in load(work, [], None)][:2] == [
        "baseline, aligned as musicnn-0.1s",
        "baseline, aligned as other-0.1s",
    ]


@pytest.mark.parametrize(
    ("keep", "classes"),
    [
        (np.arange(39), CLASSES),
        (np.r_[0, 0:39], CLASSES),
        (np.arange(40), ["piano", "flute", "drums", "gong"]),
    ],
    ids=["fewer clips", "other clips", "other classes"],
)
def test_other_test_sets_are_told_apart(work: Path, keep: np.ndarray, classes: list[str]) -> None:
    for seed in (0, 1):
        on_other_data(RunDir(work / "runs" / f"demo-conreg-musicnn-a0.3-s{seed}"), keep, classes)
    result = CliRunner().invoke(train, ["compare", "--work", str(work)])
    assert result.exit_code == 0, result.output
    assert "numbers compare within a test set only" in result.output
    assert table(load(work, [], None))["test set"].tolist() == [1, 2]
    page = (work / "reports" / "demo.html").read_text()
    assert page.count("Groups with another test set are not drawn.") == 3
    assert left_out(page) == ["Con-Reg (musicnn, alpha 0.3): another test set"]


def left_out(page: str) -> list[str]:
    """What a page lists as not drawn: folded, behind how many there are."""
    match = re.search(
        r"<details><summary>Left out \((\d+)\)</summary>(.*?)</details>", page, re.DOTALL
    )
    assert match is not None
    found = re.findall("<li>(.*?)</li>", match[2])
    assert len(found) == int(match[1])
    return found


def test_maps_lay_equal_clips_on_each_other(work: Path) -> None:
    run = RunDir(work / "runs" / "demo-baseline-s1")
    shutil.copy(work / "runs" / "demo-baseline-s0" / "embeddings.npz", run.path)
    on_other_data(run, np.random.default_rng(0).permutation(40))
    first, second, _ = load(work, [], None)
    one, other = plots.embedding_map([first, second]).axes[:2]
    for here, there in zip(one.collections, other.collections, strict=True):
        apart = np.linalg.norm(here.get_offsets() - there.get_offsets(), axis=1)
        spread_out = np.ptp(here.get_offsets(), axis=0).max()
        assert np.median(apart) < spread_out / 10


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


def page_of(work: Path, *arguments: str) -> str:
    target = work / "page.html"
    result = CliRunner().invoke(
        train, ["compare", *arguments, "--report", str(target), "--work", str(work)]
    )
    assert result.exit_code == 0, result.output
    return target.read_text()


def test_what_is_not_drawn_is_named_and_can_be_chosen(work: Path) -> None:
    for alpha in (1.0, 2.0, 3.0, 4.0, 5.0):
        made_up_run(work, 0, 0.6, **{**CONREG, "alpha": alpha})
    made_up_run(work, 0, 0.2, fraction=0.1)
    page = page_of(work)
    assert "6 of 8 groups of runs are drawn" in page
    assert left_out(page) == ["baseline (fraction 0.1)", "Con-Reg (musicnn, alpha 5)"]
    assert 'addEventListener("beforeprint"' in page  # unfolds it on paper
    assert "than baseline in macro PR-AUC" in page.split("alpha 5) is ")[1][:60]
    page = page_of(work, "demo-baseline-s0", "demo-conreg-musicnn-a5-s0")
    assert "groups of runs are drawn" not in page
    assert "<summary>Left out" not in page


def test_classes_stand_in_numbers_too(work: Path) -> None:
    [section] = [
        part for part in page_of(work).split("<section>") if "Class by class, in numbers" in part
    ]
    lines = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in section.split("</tr>")]
    assert [line for line in lines if line] == [
        ["class", "test clips", "baseline", "Con-Reg (musicnn, alpha 0.3)"],
        *([name, "10", "0.550", "0.660"] for name in CLASSES[:3]),
        ["banjo", "0", "–", "–"],
    ]
    assert "<details>" not in section


def test_a_long_table_of_classes_is_folded(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featreg.train.report.MOST_ROWS", len(CLASSES) - 1)
    assert "<details><summary>All 4 classes</summary>" in page_of(work)


def test_tables_say_what_made_them(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/any/bin/train", "ablate", "--seeds", "2"])
    reports, groups = work / "reports", load(work, [], None)
    chosen = "alpha 0.3 of Con-Reg was chosen on the validation split."
    ablate.write(ablate.points(groups, chosen), reports)
    params.write(params.table_two(50, "mel_cnn"), reports)
    monkeypatch.setattr("sys.argv", ["/any/bin/train", "table1", "--seeds", "2"])
    write_table(work)
    page = page_of(work)
    assert "demo: made by <code>train table1 --seeds 2</code>." in page
    assert "Made by <code>train ablate --seeds 2</code>." in page
    assert f"of training. {chosen}</figcaption>" in page
    assert "Made by <code>train params --classes 50 --encoder mel_cnn --save</code>." in page
    assert "mel_cnn at full width, 50 classes" in page
    assert "Table II of the paper has harmonic_cnn and 17 classes" in page


def write_table(work: Path) -> None:
    """`train table1` of the runs that are there."""
    cells = [
        table1.Cell(each.config.method_title, [[result.config for result in each.results]])
        for each in load(work, [], None)
    ]
    table1.write(table1.rows(cells, Runner(work), {}), [], work / "reports")


def test_a_seed_more_than_the_table_has_leaves_its_method_drawn(work: Path) -> None:
    write_table(work)
    made_up_run(work, 0, 0.2, fraction=0.1)
    for seed in (2, 3):
        made_up_run(work, seed, 0.5)
    page = page_of(work)
    assert left_out(page) == ["baseline (fraction 0.1)"]
    assert "No baseline is among these runs" not in page
    assert "is 0.110 better than baseline" in page


def test_a_row_whose_runs_are_gone_says_so(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/any/bin/train", "table1", "--seeds", "2"])
    write_table(work)
    assert "run removed" not in page_of(work)
    names = [f"demo-conreg-musicnn-a0.3-s{seed}" for seed in (0, 1)]
    for gone in ([1], [0, 1]):  # some of them, and all
        shutil.rmtree(work / "runs" / names[gone[0]])
        origin = page_of(work).split("<dt>Con-Reg (musicnn)</dt>")[1]
        assert "<code>train table1 --seeds 2</code>" in origin
        said = re.findall("<li>run removed: runs/(.*?)</li>", origin)
        assert said == [names[seed] for seed in gone]


def test_a_row_whose_runs_were_made_again_says_so(work: Path) -> None:
    write_table(work)
    assert "made again" not in page_of(work)
    run = RunDir(work / "runs" / "demo-baseline-s1")
    report = run.read_json("report.json")
    report["test"]["pr_auc"] = 0.8
    run.write_json("report.json", report)
    rows, groups = table1.read(work / "reports"), load(work, [], None)
    [note] = table1.replaced_notes(rows, groups)
    assert note == (
        "baseline on demo: 0.550 is kept, but its runs were made again since, and now have 0.650; "
        "run `train table1` again."
    )
    assert "now have 0.650; run <code>train table1</code> again." in page_of(work)
    shutil.rmtree(run.path)  # of which the page says more below
    assert "made again" not in page_of(work)


def test_names_of_combined_features_break_on_narrow_screens(work: Path) -> None:
    made_up_run(work, 0, 0.6, **{**CONREG, "features": ("vggish", "openl3")})
    assert "<td>Con-Reg (vggish+<wbr>openl3, alpha 0.3)</td>" in page_of(work)
    assert plots._wrapped("Con-Reg (vggish+openl3+musicnn, alpha 0.3)", 19).splitlines() == [
        "Con-Reg (vggish+",
        "openl3+musicnn,",
        "alpha 0.3)",
    ]


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
