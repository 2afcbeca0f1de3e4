"""A study from a recipe: its commands, its resumption, and its table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_toy
from test_train_cli import call

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.data.crops import EpochOrder
from featreg.train.evaluation.bootstrap import draws
from featreg.train.experiments import study_table
from featreg.train.experiments.study import pretrainings, read_study, run_name, runs
from featreg.train.training.run_dir import RunDir

RECIPE = """
network_options: --encoder mel_cnn --width 2 --crop 1 --epochs 1 --batch-size 4 --chunks 2
label_fractions: {0.5: "--lr 0.01", 1: ""}
seeds: [3, 4]
pretraining:
  teacher: pretrain --reg hint
methods:
  baseline: run
  Hint: run --reg hint --unlabelled-batch 2
  started: {command: run, pretraining: teacher}
  probe: probe
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "few.yaml"
    path.write_text(RECIPE)
    return path


def test_every_method_has_every_fraction_and_seed(recipe: Path) -> None:
    study = read_study(recipe)
    steps = list(runs(study))
    expected = {
        run_name(study, method, fraction, seed)
        for method, fraction, seed in itertools.product(study.methods, (0.5, 1), (3, 4))
    }
    assert {step.run for step in steps} == expected
    assert len(steps) == len(expected) == 16
    assert [step.run for step in pretrainings(study)] == ["few-teacher-s3", "few-teacher-s4"]
    words = {step.run: list(step.words) for step in steps}
    half = words["few-hint-50-s3"]
    assert half[half.index("--unlabelled-batch") + 1] == "2"
    assert half[half.index("--label-fraction") + 1] == "0.5"
    assert half[half.index("--lr") + 1] == "0.01"
    assert "--unlabelled-batch" not in words["few-hint-100-s3"]  # no clip is unlabelled

    started = words["few-started-50-s4"]
    assert started[started.index("--init") + 1] == "few-teacher-s4"
    assert "--encoder" not in words["few-probe-50-s3"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("seeds:", "seed:"), "seeds"),
        (("pretraining: teacher", "pretraining: nobody"), "nobody"),
        (("methods:", "more: 1\nmethods:"), "more"),
        (("{0.5:", "{half:"), "half"),
        (("methods:", "methods: ["), "few.yaml"),
    ],
)
def test_recipes_that_cannot_be(recipe: Path, change: tuple[str, str], named: str) -> None:
    recipe.write_text(RECIPE.replace(*change))
    with pytest.raises(UsageError, match=named):
        read_study(recipe)


def test_a_study_runs_resumes_and_prints_its_table(recipe: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_toy(work)
    recipe.write_text(RECIPE.replace("[3, 4]", "[3]").replace(', 1: ""', ""))
    study = read_study(recipe)
    with pytest.raises(FeatregError, match="few-baseline-50-s3"):
        study_table.table(work, study)
    first = call(work, "study", str(recipe), "--jobs", "2")
    assert first.exit_code == 0, first.output
    again = call(work, "study", str(recipe), "--jobs", "2")
    assert again.exit_code == 0, again.output
    assert "4 runs: 4 finished, 0 to do" in again.stderr + again.stdout
    for kind in ("csv", "md", "png", "svg", "pdf"):
        assert (work / "reports" / f"study-few.{kind}").stat().st_size > 0

    found = study_table.table(work, study)
    assert (found["low"] <= found["mean"]).all()
    assert (found["mean"] <= found["high"]).all()
    baseline = found[found["method"] == "baseline"]
    assert (baseline[["gain", "gain_low", "gain_high"]] == 0).all(axis=None)
    reports = [
        RunDir(work / "runs" / f"few-hint-50-s{seed}").read_json("report.json")["test"]
        for seed in study.seeds
    ]
    row = found.query("method == 'Hint' and label_fraction == 0.5 and metric == 'pr_auc'").iloc[0]
    assert row["mean"] == pytest.approx(np.mean([each["pr_auc"] for each in reports]))
    closed = found.query("method == 'probe'")["closed"].dropna()
    assert closed.tolist() == pytest.approx([1.0] * len(closed))


def test_groups_are_drawn_whole() -> None:
    groups = np.array(["a", "b", "a", "c", "b", "b"])
    counts = draws(len(groups), resamples=200, groups=groups)
    assert (counts[0] == counts[2]).all()
    assert (counts[1] == counts[4]).all()
    assert (counts[[0, 1, 3]].sum(axis=0) == 3).all()


@pytest.mark.parametrize(
    ("clips", "least", "steps"), [(11, 0, 3), (11, 3, 3), (11, 7, 9), (4, 5, 5)]
)
def test_an_epoch_has_several_passes_if_one_is_short(clips: int, least: int, steps: int) -> None:
    order = EpochOrder(clips, 4, seed=0, rank=0, world=1, least_batches=least)
    assert len(order) == steps
    order.epoch = 2
    keys = list(order)
    assert len(keys) == steps
    seen: dict[int, list[int]] = {}
    for batch in keys:
        for number, clip in batch:
            seen.setdefault(number, []).append(clip)
    passes = steps // len(EpochOrder(clips, 4, 0, 0, 1))
    assert list(seen) == list(range(2 * passes, 3 * passes))
    assert all(sorted(each) == list(range(clips)) for each in seen.values())
    order.done = steps - 1  # resumed
    assert list(order) == keys[-1:]
