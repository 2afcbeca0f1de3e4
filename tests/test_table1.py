"""Table I: what is run, which alpha is taken, what stands in the table."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome
from made_up import CONREG, made_up_run
from synthetic import header, write_toy

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.locks import LOCK, locked
from featreg.train.cli.train import train
from featreg.train.experiments import table1
from featreg.train.experiments.choose_alpha import Choice, read_alphas
from featreg.train.experiments.compare import Result, group
from featreg.train.experiments.params import METHODS
from featreg.train.experiments.sweep import Runner
from featreg.train.experiments.table1 import Cell
from featreg.train.report.html import write_table_one
from featreg.train.training.run_dir import RunDir, find_runs

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


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    # Alpha 1 is better on validation, alpha 5 on the test split.
    regularized = {1.0: [(0.5, 0.7), (0.7, 0.9)], 5.0: [(0.9, 0.6), (0.9, 0.6)]}
    return [
        made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5), (0.6, 0.5)]}),
        made_up_cell(tmp_path, "Con-Reg", regularized, **CONREG),
    ]


def test_alpha_is_chosen_on_validation_whatever_the_test_split_says(
    tmp_path: Path, cells: list[Cell]
) -> None:
    baseline, regularized = table1.rows(cells, Runner(tmp_path), {})
    assert (baseline.mean, regularized.mean) == (pytest.approx(0.5), pytest.approx(0.6))
    assert regularized.spread == pytest.approx(0.2 / math.sqrt(2))
    assert regularized.alpha == 1.0
    assert regularized.valid == pytest.approx(0.8)
    assert regularized.note == (
        "alpha 1 of Con-Reg (musicnn) on demo was chosen on the validation split, by macro "
        "PR-AUC, from 1 (0.800 ± 0.141), 5 (0.600 ± 0.000)."
    )
    assert regularized.runs == "demo-conreg-musicnn-s0 demo-conreg-musicnn-s1".replace(
        "musicnn", "musicnn-a1"
    )
    assert math.isnan(baseline.alpha)


def test_between_equal_alphas_the_first_stays(tmp_path: Path) -> None:
    cell = made_up_cell(tmp_path, "Con-Reg", {3.0: [(0.5, 0.5)], 1.0: [(0.5, 0.5)]}, **CONREG)
    runner = Runner(tmp_path)
    assert Choice(runner.groups(cell.candidates)).alpha == 3.0


def test_the_table_in_words(tmp_path: Path, cells: list[Cell]) -> None:
    printed = {("demo", "Con-Reg", "musicnn"): "0.61"}
    rows = table1.rows(cells, Runner(tmp_path), printed)
    text = table1.markdown(rows, table1.notes(rows))
    assert text.splitlines()[:4] == [
        "| method | features | demo: macro PR-AUC | demo: paper |",
        "| --- | --- | --- | --- |",
        "| baseline | – | 0.500 ± 0.141 | – |",
        "| Con-Reg | musicnn | 0.600 ± 0.141 | 0.61 |",
    ]
    assert "- Mean ± sample standard deviation over 2 seeds" in text
    assert "– where it is not known to featreg" in text


def test_a_method_without_a_number_on_a_dataset_has_a_dash(tmp_path: Path) -> None:
    rows = table1.rows(
        [
            made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5)]}),
            made_up_cell(tmp_path, "baseline", {0.0: [(0.3, 0.5)]}, dataset="mtat", preset="mtat"),
            made_up_cell(tmp_path, "Con-Reg", {1.0: [(0.5, 0.5)]}, **CONREG),
        ],
        Runner(tmp_path),
        {},
    )
    shown = table1.wide(rows)
    assert shown["mtat: macro PR-AUC"].tolist() == ["0.300", "–"]
    assert "One seed each" in table1.notes(rows)[0]
    assert (
        table1.notes(rows)[-1] == "alpha of Con-Reg (musicnn) on demo is 1; none other was tried."
    )


def test_a_page_of_two_datasets_says_which_is_meant(tmp_path: Path) -> None:
    made = [
        made_up_cell(tmp_path, method, {alpha: [(value, value)]}, **names, **changes)
        for names in ({}, {"dataset": "mtat", "preset": "mtat"})
        for method, alpha, value, changes in (("baseline", 0, 0.5, {}), ("Con-Reg", 1, 0.6, CONREG))
    ]
    rows = table1.rows(made, Runner(tmp_path), {})
    results = [Result(run) for run in find_runs(tmp_path)]
    write_table_one(tmp_path / "page.html", rows, group(results))
    page = (tmp_path / "page.html").read_text()
    for dataset in ("demo", "mtat"):
        assert f"<dt>{dataset}: Con-Reg (musicnn, alpha 1" in page
        assert f"is 0.100 better than {dataset}: baseline" in page


def test_rows_of_other_datasets_stay(tmp_path: Path) -> None:
    def row(dataset: str, method: str, value: float) -> table1.Row:
        changes = {"dataset": dataset, "preset": dataset}
        cell = made_up_cell(tmp_path / f"{value}", method, {0.0: [(value, 0.5)]}, **changes)
        return table1.rows([cell], Runner(tmp_path / f"{value}"), {})[0]

    mtat, dcase = row("mtat", "baseline", 0.3), row("dcase2017", "baseline", 0.4)
    newer = row("mtat", "baseline", 0.35)
    assert table1.merged([], [mtat]) == [mtat] != [newer]
    assert table1.merged([mtat], [dcase]) == [mtat, dcase]
    assert table1.merged([mtat, dcase], [newer]) == [newer, dcase]


def test_what_is_written_is_read_back(tmp_path: Path, cells: list[Cell]) -> None:
    rows = table1.rows(cells, Runner(tmp_path), {})
    table1.write(rows, ["Said."], tmp_path)
    back = table1.read(tmp_path)
    # Before its version 3, pandas reads a number to within its last digit; a NaN equals no other.
    first, second = (
        [
            {
                name: f"{value:.14g}" if isinstance(value, float) else value
                for name, value in asdict(row).items()
            }
            for row in each
        ]
        for each in (back, rows)
    )
    assert first == second
    assert (tmp_path / "table1.md").read_text().endswith("\n- Said.\n")
    assert table1.read(tmp_path / "nowhere") == []


def test_the_known_printed_numbers_fit_the_table() -> None:
    for (dataset, method, features), value in table1.read_printed().items():
        assert dataset in ("mtat", "dcase2017")
        assert method in ("baseline", *METHODS)
        assert set(features.split("+")) <= {"vggish", "openl3", ""}
        assert 0 < float(value) < 1


def test_printed_numbers_of_another_form_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("dataset,method,number\n")
    with pytest.raises(UsageError, match=r"mine\.csv: no column features, value"):
        table1.read_printed(path)


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
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"mine\.csv: no CSV in UTF-8 \(.*{reason}"):
        table1.read_printed(path)


def test_a_number_of_another_metric_is_not_set_beside_the_papers(tmp_path: Path) -> None:
    cell = made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5)]})
    printed = {("demo", "baseline", ""): "0.41"}
    assert table1.rows([cell], Runner(tmp_path), printed)[0].paper == "0.41"
    [run] = find_runs(tmp_path)
    about = run.read_json("config.json")
    about["config"]["metric"] = "roc_auc"
    run.write_json("config.json", about)
    report = run.read_json("report.json")
    report["valid"]["roc_auc"] = 0.9
    run.write_json("report.json", report)
    [row] = table1.rows([cell], Runner(tmp_path), printed)
    assert (row.metric, row.paper) == ("roc_auc", "")
    assert table1.wide([row])["demo: paper"].tolist() == ["–"]


@pytest.mark.parametrize("text", ["1,two", "-1", "nan", "inf", "1,,2", "1,1.0"])
def test_impossible_alphas_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=f"--alphas {text}"):
        read_alphas(text)


def test_alphas_may_be_left_out() -> None:
    assert read_alphas(None) == []
    assert read_alphas("0,0.3,5") == [0, 0.3, 5]


def test_nothing_aligned_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="prep align"):
        table1.datasets_with_shards(tmp_path)


def call(work: Path, *arguments: str) -> Outcome:
    return CliRunner().invoke(train, [*arguments, *QUICK.split(), "--work", str(work)])


def times(work: Path) -> dict[str, int]:
    return {run.name: (run.path / "report.json").stat().st_mtime_ns for run in find_runs(work)}


def test_every_method_is_run_once_and_the_figure_shares_its_runs(tmp_path: Path) -> None:
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
    assert "16 runs: 16 done already, 0 to do" in again.output
    figure = call(tmp_path, "ablate", *asked[1:], "--fractions", "50,100")
    assert figure.exit_code == 0, figure.output
    assert "8 runs: 4 done already, 4 to do" in figure.output
    assert "was chosen on the validation split" in figure.output
    assert {name: times(tmp_path)[name] for name in before} == before

    report = CliRunner().invoke(train, ["compare", "--work", str(tmp_path)])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "reports" / "toy.html").read_text()
    assert "Methods and features (Table I)" in page
    assert "Fewer training clips: Con-Reg, tones (Figure 2)" in page


def test_tables_that_end_together_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path)
    seen: list[str] = []

    def watch(name: str) -> None:
        inner = getattr(table1, name)

        def watched(*arguments: Any) -> Any:
            """Another command does not get the table now."""
            with (
                pytest.raises(FeatregError, match="waits"),
                locked(tmp_path / "reports" / LOCK, "", "waits"),
            ):
                pass
            seen.append(name)
            return inner(*arguments)

        monkeypatch.setattr(table1, name, watched)

    watch("read")
    watch("write")
    done = call(tmp_path, "table1", "--features", "tones")
    assert done.exit_code == 0, done.output
    assert seen == ["read", "write"]
    with locked(tmp_path / "reports" / LOCK, "", "waits"):  # afterwards it does
        pass


def test_a_name_that_is_typed_twice_is_one(tmp_path: Path) -> None:
    write_toy(tmp_path)
    done = call(tmp_path, "table1", "--dataset", "toy,toy", "--features", "tones, tones,")
    assert done.exit_code == 0, done.output
    rows = table1.read(tmp_path / "reports")
    assert [row.method for row in rows] == ["baseline", *METHODS]


def test_a_table_of_another_dataset_is_added_to(tmp_path: Path) -> None:
    other = made_up_cell(tmp_path, "baseline", {0.0: [(0.4, 0.5)]})
    gone = made_up_cell(tmp_path, "Con-Reg", {1.0: [(0.6, 0.5)]}, **CONREG)
    table1.write(table1.rows([other, gone], Runner(tmp_path), {}), [], tmp_path / "reports")
    shutil.rmtree(tmp_path / "runs" / "demo-conreg-musicnn-a1-s0")
    write_toy(tmp_path)
    for _ in range(2):
        done = call(tmp_path, "table1", "--dataset", "toy", "--features", "tones")
        assert done.exit_code == 0, done.output
        found = table1.read(tmp_path / "reports")
        methods = [row.method for row in found if row.dataset == "toy"]
        assert methods == ["baseline", *METHODS]
        assert [row.mean for row in found if row.dataset == "demo"] == [0.4, 0.6]
        for kind in ("md", "html"):
            text = (tmp_path / "reports" / f"table1.{kind}").read_text()
            assert "demo: macro PR-AUC" in text
            assert "toy: macro PR-AUC" in text
            assert "0.600" in text
            # The number stays, and its origin is said to be gone.
            assert "run removed" in text
            assert "runs/demo-conreg-musicnn-a1-s0" in text
        assert "<dt>demo: Con-Reg (musicnn)</dt>" in text
        assert (
            "Con-Reg (musicnn) on demo: run removed, its number is kept: "
            "runs/demo-conreg-musicnn-a1-s0." in done.output
        )


def test_one_alpha_or_several(tmp_path: Path) -> None:
    done = call(tmp_path, "ablate", "--alpha", "1", "--alphas", "1,5")
    assert done.exit_code == 2
    assert "give one of the two" in done.output


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
