"""Which runs a comparison shows: finished, of one dataset, sound; others are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import CONREG, made_up_run

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.config.presets import PRESETS
from featreg.train.experiments.select_runs import refuse_damaged, select_runs
from featreg.train.training.run_dir import RunDir

BASELINE, OTHER = "demo-baseline-s0", "demo-conreg-musicnn-a0.3-s0"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made_up_run(tmp_path, 0, 0.5)
    made_up_run(tmp_path, 0, 0.6, **CONREG)
    return tmp_path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings."""
    lines: list[str] = []
    monkeypatch.setattr("featreg.train.experiments.select_runs.warn", lines.append)
    return lines


def chosen(work: Path, *names: str, dataset: str | None = None) -> list[str]:
    return [run.name for run in select_runs(work, names, dataset)[0]]


def test_all_runs_or_those_that_are_named(work: Path, said: list[str]) -> None:
    assert chosen(work) == [BASELINE, OTHER]
    assert chosen(work, OTHER) == [OTHER]
    path = str(work / "runs" / BASELINE)
    assert chosen(work, OTHER, BASELINE, path, OTHER) == [OTHER, BASELINE]
    assert select_runs(work, (), None)[1] == {}
    assert said == []
    with pytest.raises(UsageError, match="gone"):
        chosen(work, "gone")


def test_unfinished_runs_are_left_out_or_refused(work: Path, said: list[str]) -> None:
    (work / "runs" / BASELINE / "report.json").unlink()
    assert chosen(work) == [OTHER]
    (line,) = said
    assert BASELINE in line
    with pytest.raises(FeatregError, match=f"{BASELINE}: not finished"):
        chosen(work, OTHER, BASELINE)
    (work / "runs" / OTHER / "report.json").unlink()
    with pytest.raises(FeatregError, match="no finished run"):
        chosen(work)


def test_runs_of_one_dataset_are_shown(work: Path, said: list[str]) -> None:
    made_up_run(work, 0, 0.5, dataset="mtat", preset="mtat", recipe=PRESETS["mtat"])
    with pytest.raises(UsageError, match=r"demo, mtat.*--dataset"):
        chosen(work)
    assert chosen(work, dataset="demo") == [BASELINE, OTHER]
    assert chosen(work, dataset="mtat") == ["mtat-baseline-s0"]
    assert chosen(work, OTHER) == [OTHER]
    with pytest.raises(UsageError, match="--dataset other"):
        chosen(work, dataset="other")


@pytest.mark.parametrize("name", ["config.json", "metrics.csv"])
def test_damaged_runs_are_left_out_and_named(work: Path, said: list[str], name: str) -> None:
    path = work / "runs" / BASELINE / name
    path.write_bytes(b"{")
    runs, damaged = select_runs(work, (), None)
    assert runs == [RunDir(work / "runs" / OTHER)]
    assert list(damaged) == [BASELINE]
    assert str(path) in damaged[BASELINE]
    (line,) = said
    assert line.startswith(BASELINE)
    assert damaged[BASELINE] in line
    with pytest.raises(FeatregError, match=rf"1 damaged run .*{BASELINE}"):
        refuse_damaged(damaged)
    with pytest.raises(FeatregError, match=r"2 damaged runs .*a, b"):
        refuse_damaged({"a": "", "b": ""})
    with pytest.raises(FeatregError, match=r"1 damaged run .*a"):
        refuse_damaged({"a": ""})
    refuse_damaged({})


@pytest.mark.parametrize("name", ["config.json", "metrics.csv"])
def test_where_all_are_damaged_the_reasons_are_the_error(
    work: Path, said: list[str], name: str
) -> None:
    for run in (BASELINE, OTHER):
        (work / "runs" / run / name).write_bytes(b"{")
    with pytest.raises(FeatregError, match=rf"{BASELINE}.*{name}.*; .*{OTHER}.*{name}"):
        chosen(work)
