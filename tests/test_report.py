"""The report of a comparison: its figures, tables and sentences."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import (
    CLASSES,
    CONREG,
    made_up_run,
    make_up_runs,
    on_other_data,
    page_of,
    rewrite_report,
)

from featreg.train.cli.train import train
from featreg.train.experiments import ablate, params, table1
from featreg.train.experiments.compare import load, table
from featreg.train.report import plots
from featreg.train.training.run_dir import RunDir


@pytest.fixture
def work(tmp_path: Path) -> Path:
    make_up_runs(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("keep", "classes"),
    [
        (np.arange(39), CLASSES),
        (np.r_[0, 0:39], CLASSES),
        (np.arange(40), ["piano", "flute", "drums", "gong"]),
    ],
    ids=["fewer clips", "other clips", "other classes"],
)
def test_different_test_sets_are_numbered(work: Path, keep: np.ndarray, classes: list[str]) -> None:
    for seed in (0, 1):
        on_other_data(RunDir(work / "runs" / f"demo-conreg-musicnn-a0.3-s{seed}"), keep, classes)
    result = CliRunner().invoke(train, ["compare", "--work", str(work)])
    assert result.exit_code == 0, result.output
    assert "same test set" in result.output
    assert table(load(work, [], None)[0])["test set"].tolist() == [1, 2]
    page = (work / "reports" / "demo.html").read_text()
    assert page.count("Groups with another test set are not shown.") == 3
    assert left_out(page) == ["Con-Reg (musicnn, alpha 0.3): another test set"]


def left_out(page: str) -> list[str]:
    """Return the collapsed list of groups that are not drawn, and check its count."""
    match = re.search(
        r"<details><summary>Not shown \((\d+)\)</summary>(.*?)</details>", page, re.DOTALL
    )
    assert match is not None
    found = re.findall("<li>(.*?)</li>", match[2])
    assert len(found) == int(match[1])
    return found


def test_equal_embeddings_have_equal_maps(work: Path) -> None:
    run = RunDir(work / "runs" / "demo-baseline-s1")
    shutil.copy(work / "runs" / "demo-baseline-s0" / "embeddings.npz", run.path)
    rewrite_report(run)
    on_other_data(run, np.random.default_rng(0).permutation(40))
    first, second, _ = load(work, [], None)[0]
    one, other = plots.embedding_map([first, second]).axes[:2]
    for here, there in zip(one.collections, other.collections, strict=True):
        apart = np.linalg.norm(here.get_offsets() - there.get_offsets(), axis=1)
        spread_out = np.ptp(here.get_offsets(), axis=0).max()
        assert np.median(apart) < spread_out / 10


def test_the_report_is_self_contained(work: Path) -> None:
    result = CliRunner().invoke(train, ["compare", "--work", str(work)])
    assert result.exit_code == 0, result.output
    assert "0.550 ± 0.071" in result.output
    assert result.output.count("Notes are <b>escaped</b>.") == 1
    page = (work / "reports" / "demo.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "each of 2 seeds" in page
    assert "train run --reg none" in page
    assert "0123456789abcdef" in page
    assert "on the test split: banjo" in page
    assert "Notes are &lt;b&gt;escaped" in page


def test_groups_that_are_not_drawn_are_listed_and_can_be_selected(work: Path) -> None:
    for alpha in (1.0, 2.0, 3.0, 4.0, 5.0):
        made_up_run(work, 0, 0.6, **{**CONREG, "alpha": alpha})
    made_up_run(work, 0, 0.2, fraction=0.1)
    page = page_of(work)
    assert "6 of 8 groups of runs" in page
    assert left_out(page) == ["baseline (fraction 0.1)", "Con-Reg (musicnn, alpha 5)"]
    assert 'addEventListener("beforeprint"' in page  # unfolds it on paper
    assert "than baseline in macro PR-AUC" in page.split("alpha 5) is ")[1][:60]
    page = page_of(work, "demo-baseline-s0", "demo-conreg-musicnn-a5-s0")
    assert " groups of runs, and" not in page
    assert "<summary>Not shown" not in page


def test_the_classes_are_also_in_a_table(work: Path) -> None:
    [section] = [
        part for part in page_of(work).split("<section>") if "per class, in numbers" in part
    ]
    lines = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in section.split("</tr>")]
    assert [line for line in lines if line] == [
        ["class", "test clips", "baseline", "Con-Reg (musicnn, alpha 0.3)"],
        *([name, "10", "0.550", "0.660"] for name in CLASSES[:3]),
        ["banjo", "0", "–", "–"],
    ]
    assert "<details>" not in section


def test_a_long_table_of_classes_is_collapsed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featreg.train.report.figures.MOST_ROWS", len(CLASSES) - 1)
    assert "<details><summary>All 4 classes</summary>" in page_of(work)


def test_tables_name_the_commands_that_created_them(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/any/bin/train", "ablate", "--seeds", "2"])
    reports, groups = work / "reports", load(work, [], None)[0]
    chosen = "alpha 0.3 of Con-Reg was chosen on the validation split."
    ablate.write(ablate.points(groups, chosen), reports)
    params.write(params.table_two(50, "mel_cnn"), reports)
    monkeypatch.setattr("sys.argv", ["/any/bin/train", "table1", "--seeds", "2"])
    write_table(work)
    page = page_of(work)
    assert "demo: created by <code>train table1 --seeds 2</code>." in page
    assert "Created by <code>train ablate --seeds 2</code>." in page
    assert f" {chosen}</figcaption>" in page
    assert "Created by <code>train params --classes 50 --encoder mel_cnn --save</code>." in page
    assert "mel_cnn at full width, 50 classes" in page
    assert "harmonic_cnn and 17 classes" in page


def write_table(work: Path) -> None:
    """`train table1` of the runs that are there."""
    cells = [
        table1.Cell(each.config.method_title, [[result.config for result in each.results]])
        for each in load(work, [], None)[0]
    ]
    table1.record(work, cells, {})


def test_a_method_with_additional_seeds_is_still_drawn(work: Path) -> None:
    write_table(work)
    made_up_run(work, 0, 0.2, fraction=0.1)
    for seed in (2, 3):
        made_up_run(work, seed, 0.5)
    page = page_of(work)
    assert left_out(page) == ["baseline (fraction 0.1)"]
    assert "no baseline" not in page
    assert "is 0.110 better than baseline" in page


def test_a_table_names_missing_runs(work: Path) -> None:
    write_table(work)
    assert "Missing runs" not in page_of(work)
    shutil.rmtree(work / "runs" / "demo-conreg-musicnn-a0.3-s1")
    assert "Missing runs: runs/demo-conreg-musicnn-a0.3-s1" in page_of(work)


def test_names_of_combined_features_break_on_narrow_screens(work: Path) -> None:
    made_up_run(work, 0, 0.6, **{**CONREG, "features": ("vggish", "openl3")})
    assert "<td>Con-Reg (vggish+<wbr>openl3, alpha 0.3)</td>" in page_of(work)
    assert plots._wrapped("Con-Reg (vggish+openl3+musicnn, alpha 0.3)", 19).splitlines() == [
        "Con-Reg (vggish+",
        "openl3+musicnn,",
        "alpha 0.3)",
    ]


def test_the_path_of_the_report_can_be_given(work: Path) -> None:
    target = work / "elsewhere.html"
    names = ["demo-baseline-s0", str(work / "runs" / "demo-baseline-s1")]
    arguments = ["compare", *names, "--report", str(target), "--work", str(work)]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert target.is_file()
