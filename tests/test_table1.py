"""Table I: its runs, the choice of alpha, and the table."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome
from made_up import CONREG, made_up_run, rewrite_report
from synthetic import header, write_toy

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.cli.train import train
from featreg.train.experiments import table1
from featreg.train.experiments.choose_alpha import Choice, read_alphas
from featreg.train.experiments.compare import Result, group
from featreg.train.experiments.paper_numbers import read_printed
from featreg.train.experiments.params import METHODS
from featreg.train.experiments.sweep import Runner
from featreg.train.experiments.table1 import Cell
from featreg.train.report.html import write_table_one
from featreg.train.training.find_runs import find_runs
from featreg.train.training.run_dir import RunDir

NOTHING: dict[tuple[str, ...], str] = {}
QUICK = "--preset default --width 2 --crop 2.1 --epochs 1 --chunks 2 --precision float32"


def made_up_cell(work: Path, method: str, values: dict[float, Any], **changes: Any) -> Cell:
    """A cell whose runs are there: alpha -> (test, validation) of each seed."""
    candidates = [
        [
            made_up_run(work, seed, test, valid, **{**changes, "alpha": alpha}).config()
            for seed, (test, valid) in enumerate(found)
        ]
        for alpha, found in values.items()
    ]
    return Cell(method, candidates)


def rows_of(
    work: Path, cells: Sequence[Cell], printed: Mapping[tuple[str, ...], str] = NOTHING
) -> list[table1.Row]:
    """The table in `work`, to which cells are added."""
    table1.record(work, cells, printed)
    return table1.read(work).rows


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    # Alpha 1 is better on validation, alpha 5 on the test split.
    regularized = {1.0: [(0.5, 0.7), (0.7, 0.9)], 5.0: [(0.9, 0.6), (0.9, 0.6)]}
    return [
        made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5), (0.6, 0.5)]}),
        made_up_cell(tmp_path, "Con-Reg", regularized, **CONREG),
    ]


def test_alpha_is_chosen_on_the_validation_split_only(tmp_path: Path, cells: list[Cell]) -> None:
    baseline, regularized = rows_of(tmp_path, cells, {})
    assert (baseline.mean, regularized.mean) == (pytest.approx(0.5), pytest.approx(0.6))
    assert regularized.spread == pytest.approx(0.2 / math.sqrt(2))
    assert regularized.alpha == 1.0
    assert regularized.valid == pytest.approx(0.8)
    assert "alpha 1 of Con-Reg (musicnn) on demo" in regularized.note
    assert "by macro PR-AUC" in regularized.note
    assert "1 (0.800 ± 0.141), 5 (0.600 ± 0.000)" in regularized.note
    assert regularized.runs == "demo-conreg-musicnn-s0 demo-conreg-musicnn-s1".replace(
        "musicnn", "musicnn-a1"
    )
    assert math.isnan(baseline.alpha)


def test_the_first_of_equal_alphas_is_chosen(tmp_path: Path) -> None:
    cell = made_up_cell(tmp_path, "Con-Reg", {3.0: [(0.5, 0.5)], 1.0: [(0.5, 0.5)]}, **CONREG)
    runner = Runner(tmp_path)
    assert Choice(runner.groups(cell.candidates)).chosen.config.alpha == 3.0


def test_the_table_for_display(tmp_path: Path, cells: list[Cell]) -> None:
    printed = {("demo", "Con-Reg", "musicnn"): "0.61"}
    rows = rows_of(tmp_path, cells, printed)
    text = table1.markdown(rows, table1.notes(rows))
    assert text.splitlines()[:4] == [
        "| method | features | demo: macro PR-AUC | demo: paper |",
        "| --- | --- | --- | --- |",
        "| baseline | – | 0.500 ± 0.141 | – |",
        "| Con-Reg | musicnn | 0.600 ± 0.141 | 0.61 |",
    ]
    assert "- Mean ± sample standard deviation over 2 seeds" in text
    assert "paper: the number printed in Table I" in text


def test_a_method_without_a_number_on_a_dataset_has_a_dash(tmp_path: Path) -> None:
    made = [
        made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5)]}),
        made_up_cell(tmp_path, "baseline", {0.0: [(0.3, 0.5)]}, dataset="mtat", preset="mtat"),
        made_up_cell(tmp_path, "Con-Reg", {1.0: [(0.5, 0.5)]}, **CONREG),
    ]
    rows = rows_of(tmp_path, made)
    shown = table1.wide(rows)
    assert shown["mtat: macro PR-AUC"].tolist() == ["0.300", "–"]
    assert "One seed" in table1.notes(rows)[0]
    assert "alpha of Con-Reg (musicnn) on demo is 1;" in table1.notes(rows)[-1]


def test_a_page_of_two_datasets_names_the_dataset(tmp_path: Path) -> None:
    made = [
        made_up_cell(tmp_path, method, {alpha: [(value, value)]}, **names, **changes)
        for names in ({}, {"dataset": "mtat", "preset": "mtat"})
        for method, alpha, value, changes in (("baseline", 0, 0.5, {}), ("Con-Reg", 1, 0.6, CONREG))
    ]
    rows = rows_of(tmp_path, made, {})
    results = [Result(run) for run in find_runs(tmp_path)]
    write_table_one(tmp_path / "page.html", rows, group(results), ["Said."])
    page = (tmp_path / "page.html").read_text()
    for dataset in ("demo", "mtat"):
        assert f"<dt>{dataset}: Con-Reg (musicnn, alpha 1" in page
        assert f"is 0.100 better than {dataset}: baseline" in page


def test_rows_of_other_datasets_are_kept(tmp_path: Path) -> None:
    def cell(dataset: str, value: float, seed: int) -> Cell:
        run = made_up_run(tmp_path, seed, value, dataset=dataset, preset=dataset)
        return Cell("baseline", [[run.config()]])

    assert [row.mean for row in rows_of(tmp_path, [cell("mtat", 0.3, 0)])] == [0.3]
    both = rows_of(tmp_path, [cell("dcase2017", 0.4, 0)])
    assert [(row.dataset, row.mean) for row in both] == [("dcase2017", 0.4), ("mtat", 0.3)]
    newer = rows_of(tmp_path, [cell("mtat", 0.35, 1)])
    assert [(row.dataset, row.mean) for row in newer] == [("dcase2017", 0.4), ("mtat", 0.35)]
    assert [row.runs for row in table1.read(tmp_path, "mtat").rows] == [newer[1].runs]
    assert table1.read(tmp_path / "nowhere").rows == []


def test_numbers_are_those_of_the_existing_runs(tmp_path: Path, cells: list[Cell]) -> None:
    assert rows_of(tmp_path, cells)[0].mean == pytest.approx(0.5)
    run = RunDir(tmp_path / "runs" / "demo-baseline-s1")
    rewrite_report(run, test={"pr_auc": 0.8})
    assert table1.read(tmp_path).rows[0].mean == pytest.approx(0.6)
    (run.path / "metrics.csv").write_text("")
    table = table1.read(tmp_path)
    assert (table.rows[0].mean, table.rows[0].seeds) == (0.4, 1)
    assert str(run.path / "metrics.csv") in table.damaged[run.name]
    shutil.rmtree(run.path)
    table = table1.read(tmp_path)
    assert (table.rows[0].mean, table.missing, table.damaged) == (0.4, [run.name], {})
    assert run.name in table1.notes(table.rows, table.missing)[-1]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": [{}], "command": ""}'])
def test_a_damaged_record_is_named(tmp_path: Path, cells: list[Cell], content: str) -> None:
    rows_of(tmp_path, cells)
    (tmp_path / "reports" / "table1-demo.json").write_text(content)
    with pytest.raises(FeatregError, match=r"table1-demo\.json.*`train table1` again"):
        table1.read(tmp_path)


def test_the_written_files_contain_the_table(tmp_path: Path, cells: list[Cell]) -> None:
    rows = rows_of(tmp_path, cells)
    table1.write(rows, ["Said."], tmp_path)
    found = pd.read_csv(tmp_path / "table1.csv", keep_default_na=False)
    assert found["method"].tolist() == ["baseline", "Con-Reg"]
    assert found["mean"].tolist() == pytest.approx([row.mean for row in rows])
    assert (tmp_path / "table1.md").read_text().endswith("\n- Said.\n")


def test_the_known_printed_numbers_fit_the_table() -> None:
    for (dataset, method, features), value in read_printed().items():
        assert dataset in ("mtat", "dcase2017")
        assert method in ("baseline", *METHODS)
        assert set(features.split("+")) <= {"vggish", "openl3", ""}
        assert 0 < float(value) < 1


def test_missing_columns_of_printed_numbers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("dataset,method,number\n")
    with pytest.raises(UsageError, match=r"mine\.csv: column features, value"):
        read_printed(path)


HEAD = b"dataset,method,features,value\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEAD + b'mtat,"baseline,,0.4\n', "EOF inside string"),
        (HEAD + b"mtat,baseline,,0.4\nmtat,Con-Reg,vggish,0.4,0.5\n", "line 3, saw 5"),
        (HEAD + b"mtat,baseline,,0.4,0.5\n", "more cells than the header"),
        (HEAD + "mtat,baseline,,é\n".encode("latin-1"), "can't decode byte 0xe9"),
        (b"", "No columns"),
    ],
)
def test_an_invalid_csv_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"mine\.csv: .*UTF-8 \(.*{reason}"):
        read_printed(path)


def test_the_papers_number_is_omitted_for_another_metric(tmp_path: Path) -> None:
    cell = made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5)]})
    printed = {("demo", "baseline", ""): "0.41"}
    assert rows_of(tmp_path, [cell], printed)[0].paper == "0.41"
    [run] = find_runs(tmp_path)
    about = run.read_json("config.json")
    about["config"]["metric"] = "roc_auc"
    run.write_json("config.json", about)
    report = run.read_json("report.json")
    report["valid"]["roc_auc"] = 0.9
    run.write_json("report.json", report)
    [row] = rows_of(tmp_path, [cell], printed)
    assert (row.metric, row.paper) == ("roc_auc", "")
    assert table1.wide([row])["demo: paper"].tolist() == ["–"]


@pytest.mark.parametrize("text", ["1,two", "-1", "nan", "inf", "1,,2", "1,1.0"])
def test_impossible_alphas_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=f"--alphas {text}"):
        read_alphas(text)


def test_alphas_may_be_left_out() -> None:
    assert read_alphas(None) == []
    assert read_alphas("0,0.3,5") == [0, 0.3, 5]


def test_missing_alignment_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="prep align"):
        table1.datasets_with_shards(tmp_path)


def call(work: Path, *arguments: str) -> Outcome:
    return CliRunner().invoke(train, [*arguments, *QUICK.split(), "--work", str(work)])


def times(work: Path) -> dict[str, int]:
    return {run.name: (run.path / "report.json").stat().st_mtime_ns for run in find_runs(work)}


def test_table_and_figure_share_their_runs(tmp_path: Path) -> None:
    write_toy(tmp_path)
    asked = ["table1", "--seeds", "2", "--alphas", "0,0.5", "--features", "tones"]
    done = call(tmp_path, *asked)
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "reports" / "table1.csv")
    assert found["method"].tolist() == ["baseline", *METHODS]
    for row in found.itertuples():
        reports = [
            RunDir(tmp_path / "runs" / name).read_json("report.json") for name in row.runs.split()
        ]
        values = [report["test"]["pr_auc"] for report in reports]
        assert row.mean == pytest.approx(sum(values) / 2)
        assert row.spread == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    page = (tmp_path / "reports" / "table1.html").read_text()
    assert "0.5 (" in page
    assert "toy: 16 training" in page
    # Of every method 2 seeds, of the regularized ones 2 alphas.
    before = times(tmp_path)
    assert len(before) == 2 * (4 + 2 * 2)

    again = call(tmp_path, *asked)
    assert "16 runs: 16 finished, 0 to do" in again.output
    figure = call(tmp_path, "ablate", *asked[1:], "--fractions", "50,100")
    assert figure.exit_code == 0, figure.output
    assert "8 runs: 4 finished, 4 to do" in figure.output
    assert "was chosen by macro PR-AUC on the validation" in figure.output
    assert {name: times(tmp_path)[name] for name in before} == before

    report = CliRunner().invoke(train, ["compare", "--work", str(tmp_path)])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "reports" / "toy.html").read_text()
    assert "Methods and features (Table I)" in page
    assert "Fewer training clips: Con-Reg, tones (Figure 2)" in page


def test_duplicate_names_are_ignored(tmp_path: Path) -> None:
    write_toy(tmp_path)
    done = call(tmp_path, "table1", "--dataset", "toy,toy", "--features", "tones, tones,")
    assert done.exit_code == 0, done.output
    rows = table1.read(tmp_path).rows
    assert [row.method for row in rows] == ["baseline", *METHODS]


def test_a_table_is_extended_by_another_dataset(tmp_path: Path) -> None:
    other = made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5)]})
    gone = made_up_cell(tmp_path, "Con-Reg", {1.0: [(0.6, 0.5)]}, **CONREG)
    table1.record(tmp_path, [other, gone], {})
    shutil.rmtree(tmp_path / "runs" / "demo-conreg-musicnn-a1-s0")
    write_toy(tmp_path)
    done = call(tmp_path, "table1", "--dataset", "toy", "--features", "tones")
    assert done.exit_code == 0, done.output
    found = table1.read(tmp_path).rows
    methods = [row.method for row in found if row.dataset == "toy"]
    assert methods == ["baseline", *METHODS]
    assert [row.mean for row in found if row.dataset == "demo"] == [0.4]
    for kind in ("md", "html"):
        text = (tmp_path / "reports" / f"table1.{kind}").read_text()
        assert "demo: macro PR-AUC" in text
        assert "toy: macro PR-AUC" in text
        assert "runs/demo-conreg-musicnn-a1-s0" in text  # not there any more


def test_damaged_runs_are_named_and_the_others_shown(tmp_path: Path) -> None:
    write_toy(tmp_path)
    asked = ("table1", "--features", "tones", "--seeds", "2")
    assert call(tmp_path, *asked).exit_code == 0
    broken = find_runs(tmp_path)[0]
    (broken.path / "report.json").write_text("{}")
    done = call(tmp_path, *asked)
    assert done.exit_code == 1
    assert str(broken.path / "report.json") in "".join(done.output.splitlines())
    seeds = {row.method: row.seeds for row in table1.read(tmp_path).rows}
    assert sorted(seeds.values()) == [1, *[2] * len(METHODS)]


def test_alpha_and_alphas_exclude_each_other(tmp_path: Path) -> None:
    done = call(tmp_path, "ablate", "--alpha", "1", "--alphas", "1,5")
    assert done.exit_code == 2
    assert "--alpha " in done.output
    assert "--alphas 1,5" in done.output


def test_every_dataset_has_its_own_features(tmp_path: Path) -> None:
    write_toy(tmp_path)
    write_toy(tmp_path, about=header(dataset="bare", dims={"tones": 4}), aligned="tones-0.1s")
    assert table1.datasets_with_shards(tmp_path) == ["bare", "toy"]
    options = dict.fromkeys(("aligned", "preset", "metric"))
    cells = table1.plan(
        tmp_path, "cpu", {**options, "seed": 3, "devices": 1}, ["bare", "toy"], None, 2, []
    )
    features = ["+".join(cell.candidates[0][0].features) for cell in cells]
    assert features[:6] == ["", *["tones"] * 5]
    assert features[6:] == ["", *["tones", "noise", "tones+noise"] * 5]
    for cell in cells:  # Table II and runs call a method by one name
        assert cell.candidates[0][0].method_title == cell.method
    assert [config.seed for config in cells[0].candidates[0]] == [3, 4]
