"""Figure 2: fractions, bands and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import CLASSES, CONREG, made_up_run, rewrite_report

from featreg.datasets.base import UsageError
from featreg.train.evaluation.bootstrap import bootstrap
from featreg.train.evaluation.metrics import evaluate
from featreg.train.experiments import ablate
from featreg.train.experiments.compare import Result, group
from featreg.train.report.plots import ablation


def groups_of(work: Path, seeds: int) -> list[ablate.Group]:
    values = {0.1: (0.3, 0.4, 0.5), 1.0: (0.5, 0.6, 0.7)}
    runs = [
        made_up_run(work, seed, value + gain, fraction=fraction, **changes)
        for gain, changes in ((0.0, {}), (0.1, CONREG))
        for fraction, found in values.items()
        for seed, value in enumerate(found[:seeds])
    ]
    return group([Result(run) for run in runs])


def test_fractions_are_sorted_percentages() -> None:
    assert ablate.read_fractions("100,10,30,10") == [0.1, 0.3, 1.0]


@pytest.mark.parametrize("text", ["0,10", "110", "ten", "", "nan", "10,,30"])
def test_impossible_fractions_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=f"--fractions {text}"):
        ablate.read_fractions(text)


def test_every_seed_trains_on_every_fraction(tmp_path: Path) -> None:
    config = Result(made_up_run(tmp_path, 3, 0.5)).config
    plan = ablate.plan(config, [0.1, 1.0], 2)
    assert [[(each.fraction, each.seed) for each in seeded] for seeded in plan] == [
        [(0.1, 3), (0.1, 4)],
        [(1.0, 3), (1.0, 4)],
    ]


def test_the_band_of_three_seeds_is_students(tmp_path: Path) -> None:
    found = ablate.points(groups_of(tmp_path, seeds=3))
    # Mean 0.6, sample deviation 0.1; the 97.5 % quantile of t with 2 degrees is 4.302653.
    half = 4.302653 * 0.1 / np.sqrt(3)
    row = found[(found["fraction"] == 1.0) & (found["method"] == "baseline")].iloc[0]
    assert row["band"] == "seeds"
    assert row[["low", "mean", "high"]].to_numpy(float) == pytest.approx(
        [0.6 - half, 0.6, 0.6 + half], abs=1e-6
    )
    assert "mean over 3 seeds" in ablate.caption(found)


def test_fewer_seeds_have_the_band_of_the_test_clips(tmp_path: Path) -> None:
    [found] = [each for each in groups_of(tmp_path, seeds=1) if each.label == "baseline"]
    low, high, kind = ablate.band(found)
    # Perfect predictions are perfect on every draw of clips: no scatter about the mean.
    assert (low, high, kind) == (pytest.approx(0.5), pytest.approx(0.5), "test clips")


def test_the_band_of_one_run_is_the_interval_of_its_report(tmp_path: Path) -> None:
    arrays = Result(made_up_run(tmp_path / "any", 0, 0.5)).embeddings()
    guesses = np.random.default_rng(0).random(arrays["label"].shape).round(6)
    known = (arrays["label"], guesses, arrays["label_mask"])
    measured = evaluate(*known, CLASSES, "multi-label").values
    run = made_up_run(tmp_path, 0, measured["pr_auc"])
    table = pd.DataFrame(guesses, columns=CLASSES, index=arrays["clip_id"])
    table.to_csv(run.path / "predictions.csv", index_label="clip_id")
    rewrite_report(run)
    low, high, _ = ablate.band(group([Result(run)])[0])
    reported = bootstrap(*known, "multi-label", measured)["pr_auc"]
    assert (low, high) == pytest.approx(reported, abs=1e-9)
    assert 0.2 < low < high < 0.6


def test_fractions_that_differ_by_less_than_a_percent_are_distinct(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, 0, 0.5, fraction=p) for p in ablate.read_fractions("2,2.5,7")]
    found = ablate.points(group([Result(run) for run in runs]))
    assert ablate.formatted(found)["training clips"].tolist() == ["2 %", "2.5 %", "7 %"]
    figure = ablation(found)
    figure.draw_without_rendering()
    ticks = figure.axes[0].get_xticklabels()
    assert [each.get_text() for each in ticks] == ["2 %", "2.5 %", "7 %"]


def test_the_figure_is_written_and_read_back(tmp_path: Path) -> None:
    found = ablate.points(groups_of(tmp_path, seeds=3))
    path = ablate.write(found, tmp_path / "reports")
    assert path.name == "ablate-demo-con-reg-musicnn.csv"
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "Con-Reg</text>" in path.with_suffix(".svg").read_text()
    [back] = ablate.read(tmp_path / "reports", "demo")
    assert ablate.formatted(back).to_numpy().tolist() == [
        ["10 %", "0.400 (0.152 to 0.648)", "0.500 (0.252 to 0.748)"],
        ["100 %", "0.600 (0.352 to 0.848)", "0.700 (0.452 to 0.948)"],
    ]
    assert not ablate.read(tmp_path / "reports", "other")
    again = ablate.write(found, tmp_path / "again")
    assert again.with_suffix(".svg").read_bytes() == path.with_suffix(".svg").read_bytes()
