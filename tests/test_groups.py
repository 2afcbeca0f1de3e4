"""Which runs count as one method, which baseline each has, and the numbers that stand for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featreg.train.config.config import Config
from featreg.train.config.presets import ALPHAS, PRESETS
from featreg.train.evaluation.metrics import METRICS
from featreg.train.experiments.compare import (
    Group,
    Result,
    common,
    deviation,
    group,
    spread,
    table,
)
from featreg.train.experiments.differences import alphas, differences, notes
from featreg.train.training.run_dir import RunDir

CONREG: dict[str, Any] = {"reg": "conreg", "features": ("musicnn",), "alpha": 0.3}


def made(
    pr_auc: float = 0.5,
    seed: int = 0,
    name: str = "",
    shards: str = "0123456789",
    tested: str = "all",
    said: Sequence[str] = (),
    recipe: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """A finished run without files."""
    values: dict[str, Any] = {
        "dataset": "demo", "aligned": "musicnn-0.1s", "preset": "demo", "reg": "none",
        "fusion": "none", "features": (), "alpha": 0.0, "fraction": 1.0, "seed": seed,
        "metric": "pr_auc", "devices": 1, "recipe": replace(PRESETS["demo"], **(recipe or {})),
    }  # fmt: skip
    config = Config(**values | changes)
    result = Result(RunDir(Path("runs") / (name or config.run_name)))
    result.config = config
    result.about = {
        "data": {"fingerprint": shards, "notes": list(said), "classes": ["a", "b"]},
        "parameters": {"inference": 12345},
    }
    classes = [{"name": "a", "pr_auc": pr_auc}, {"name": "b", "pr_auc": None}]
    result.report = {
        "test": {"pr_auc": pr_auc, "roc_auc": 0.9},
        "valid": {config.metric: pr_auc + 0.1},
        "classes": classes,
    }
    result.test_set = tested
    return result


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings."""
    lines: list[str] = []
    monkeypatch.setattr("featreg.train.experiments.compare.warn", lines.append)
    return lines


def names(groups: Sequence[Group]) -> list[list[str]]:
    return [[result.folder.name for result in each.results] for each in groups]


def labels(*results: Result) -> list[str]:
    return [each.label for each in group(results)]


def test_runs_that_differ_in_their_seed_alone_are_one_group(said: list[str]) -> None:
    runs = [made(0.6, 2, **CONREG), made(0.5, 1), made(0.4, 0), made(0.7, 0, **CONREG)]
    baseline, conreg = group(runs)
    assert (baseline.label, conreg.label) == ("baseline", "Con-Reg (musicnn, alpha 0.3)")
    assert baseline.results == [runs[2], runs[1]]
    assert conreg.values("pr_auc") == {0: 0.7, 2: 0.6}
    assert conreg.values("pr_auc", "valid") == pytest.approx({0: 0.8, 2: 0.7})
    assert conreg.config == runs[3].config
    assert conreg.test_set == "all"
    assert said == []


@pytest.mark.parametrize(
    "change",
    [
        {"fraction": 0.5},
        {"aligned": "other"},
        {"metric": "roc_auc"},
        {"devices": 2},
        {"recipe": {"lr": 0.5}},
        {"recipe": {"precision": "float32"}},
        {"shards": "9876543210"},
        {"preset": "demo-small"},
    ],
)
def test_every_other_difference_makes_another_group(change: dict[str, Any]) -> None:
    found = group([made(), made(seed=1), made(seed=2, **change)])
    assert sorted(len(each.results) for each in found) == [1, 2]
    assert len({each.label for each in found}) == 2


def test_the_order_of_options_makes_no_other_group() -> None:
    options = {"time_pools": [3, 3], "pad_to": 9}
    orders = [options, dict(reversed(options.items()))]
    runs = [made(seed=k, recipe={"encoder_options": each}) for k, each in enumerate(orders)]
    assert len(group(runs)) == 1


def test_baselines_come_first_and_then_the_labels(said: list[str]) -> None:
    film = made(fusion="film", features=("a",))
    assert labels(made(**CONREG), made(fraction=0.5), film, made()) == [
        "baseline", "baseline (fraction 0.5)", "Con-Reg (musicnn, alpha 0.3)", "FiLM (a)",
    ]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
def test_a_seed_counts_once_by_the_run_of_the_right_name(reverse: bool, said: list[str]) -> None:
    runs = [made(0.1, name="again"), made(0.5), made(0.6, 1, name="mine")]
    (found,) = group(runs[::-1] if reverse else runs)
    assert names([found]) == [["demo-baseline-s0", "mine"]]
    (line,) = said
    assert line.startswith("again repeats demo-baseline-s0")


def test_equal_labels_say_what_differs(said: list[str]) -> None:
    assert labels(made(), made(shards="9876543210")) == [
        "baseline, shards 01234567", "baseline, shards 98765432",
    ]  # fmt: skip
    assert labels(made(), made(metric="roc_auc")) == [
        "baseline, selected by macro PR-AUC", "baseline, selected by macro ROC-AUC",
    ]  # fmt: skip
    assert labels(made(), made(recipe={"precision": "float32"})) == [
        "baseline, in auto", "baseline, in float32",
    ]  # fmt: skip
    # Shards are named only where nothing before them differs, and runs where nothing else does.
    assert labels(made(), made(aligned="other", shards="9876543210")) == [
        "baseline, aligned as musicnn-0.1s", "baseline, aligned as other",
    ]  # fmt: skip
    close = {**CONREG, "alpha": 0.3000001}
    assert labels(made(**CONREG), made(name="close", **close)) == [
        "Con-Reg (musicnn, alpha 0.3), as close",
        "Con-Reg (musicnn, alpha 0.3), as demo-conreg-musicnn-a0.3-s0",
    ]
    # Of another dataset the same label is another thing.
    assert labels(made(), made(dataset="mtat", preset="demo"), made(**CONREG)) == [
        "baseline", "baseline (preset demo)", "Con-Reg (musicnn, alpha 0.3)",
    ]  # fmt: skip
    assert labels(made(), made(dataset="demo2", preset="demo")) == [
        "baseline",
        "baseline (preset demo)",
    ]


def test_equal_labels_of_two_datasets_stay(said: list[str]) -> None:
    default = {"preset": "default", "recipe": {}}
    results = [made(dataset=name, **default) for name in ("one", "two")]
    assert labels(*results) == ["baseline"] * 2


def test_what_all_share_is_left_out_of_the_labels(said: list[str]) -> None:
    runs = [made(fraction=0.5, recipe={"lr": 0.5}), made(fraction=0.5, **CONREG)]
    found = group(runs)
    assert [each.label for each in found] == ["baseline (lr 0.5)", "Con-Reg (musicnn, alpha 0.3)"]
    assert common(found) == ["fraction 0.5"]
    assert common(found[:1]) == ["fraction 0.5", "lr 0.5"]


def test_the_test_set_is_what_was_tested_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {
        "clip_id": np.array(["b", "a", "c"]),
        "label": np.array([[0, 1], [1, 0], [1, 1]]),
        "label_mask": np.array([[1, 1], [1, 1], [1, 0]]),
        "embedding": np.zeros((3, 2)),
    }

    def fingerprint(order: list[int], classes: Sequence[str] = ("a", "b"), **changes: Any) -> str:
        result = made()
        del result.test_set
        result.about["data"]["classes"] = classes
        held = {name: values[order] for name, values in (arrays | changes).items()}
        monkeypatch.setattr(Result, "embeddings", lambda self: held)
        return result.test_set

    whole = fingerprint([0, 1, 2])
    assert fingerprint([2, 0, 1]) == whole
    assert fingerprint([0, 1, 2], embedding=np.ones((3, 2))) == whole
    others = [
        fingerprint([0, 1]),
        fingerprint([0, 1, 2], classes=("b", "a")),
        fingerprint([0, 1, 2], clip_id=np.array(["b", "a", "d"])),
        fingerprint([0, 1, 2], label=1 - arrays["label"]),
        fingerprint([0, 1, 2], label_mask=np.ones((3, 2), int)),
    ]
    assert len({whole, *others}) == 6


def test_tables_show_mean_and_spread(said: list[str]) -> None:
    rows = table(group([made(0.5), made(0.6, 1), made(0.7, **CONREG)]))
    assert rows.columns.tolist() == [
        "method", "seeds", "test macro PR-AUC", "test macro ROC-AUC", "valid macro PR-AUC",
        "parameters without extractors",
    ]  # fmt: skip
    assert rows.iloc[0].tolist() == [
        "baseline", 2, "0.550 ± 0.071", "0.900 ± 0.000", "0.650 ± 0.071", "12,345",
    ]  # fmt: skip
    assert rows["test macro PR-AUC"][1] == "0.700"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(deviation([0.5]))
    assert deviation([1, 2, 4]) == pytest.approx(np.sqrt(7 / 3))
    assert spread([1, 2, 4]) == "2.333 ± 1.528"


def test_test_sets_are_numbered_where_they_differ(said: list[str]) -> None:
    found = group([made(), made(tested="half", fraction=0.5), made(**CONREG)])
    assert table(found)["test set"].tolist() == [1, 2, 1]
    assert "test set" not in table(found[:1])
    rows = table(group([made(), made(metric="roc_auc")]))
    assert rows["valid macro ROC-AUC"].tolist() == ["–", "0.600"]


def test_precision_of_classes_is_the_mean_over_seeds(said: list[str]) -> None:
    (found,) = group([made(0.5), made(0.6, 1)])
    expected = pd.Series({"a": 0.55, "b": np.nan}, name=None)
    pd.testing.assert_series_equal(found.precision, expected, check_names=False)


def facts(*results: Result) -> list[str]:
    return differences(group(results))


def test_without_a_baseline_nothing_is_compared(said: list[str]) -> None:
    (sentence,) = facts(made(**CONREG))
    assert "no baseline" in sentence
    assert facts(made()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"fraction": 0.5},
        {"aligned": "other"},
        {"metric": "roc_auc"},
        {"devices": 2},
        {"shards": "9876543210"},
        {"recipe": {"lr": 0.5}},
        {"preset": "demo-small"},
    ],
)
def test_a_baseline_has_the_same_recipe_and_clips(change: dict[str, Any], said: list[str]) -> None:
    (sentence,) = facts(made(**change), made(**CONREG))
    assert sentence.startswith("Con-Reg (musicnn, alpha 0.3): ")
    assert "no baseline" in sentence


def test_features_of_a_method_may_be_standardized(said: list[str]) -> None:
    (sentence,) = facts(made(0.5), made(0.6, recipe={"feature_norm": "standardize"}, **CONREG))
    assert "is 0.100 better than baseline" in sentence


@pytest.mark.parametrize(
    ("baseline", "method", "words"),
    [
        ([0.5], [0.6], ["0.100 better", "one seed"]),
        ([0.5], [0.4], ["0.100 worse", "one seed"]),
        ([0.5, 0.6], [0.6, 0.8], ["0.150 better", "better with each of 2 seeds"]),
        ([0.6, 0.8], [0.5, 0.6], ["0.150 worse", "worse with each of 2 seeds"]),
        ([0.5, 0.6], [0.6, 0.55], ["0.025 better", "from -0.050 to +0.100 over 2", "no clear"]),
        ([0.5, 0.6], [0.5, 0.8], ["0.100 better", "from +0.000 to +0.200", "no clear"]),
        ([0.5, 0.8], [0.5, 0.6], ["0.100 worse", "from -0.200 to +0.000", "no clear"]),
        ([0.5], [0.5], ["one seed", "do not differ"]),
        ([0.5, 0.6], [0.5, 0.6], ["do not differ", "2 seeds"]),
    ],
)
def test_gains_are_counted_over_the_seeds_that_both_have(
    baseline: list[float], method: list[float], words: list[str], said: list[str]
) -> None:
    runs = [made(value, seed) for seed, value in enumerate(baseline)]
    runs += [made(value, seed, **CONREG) for seed, value in enumerate(method)]
    runs += [made(0.9, 7), made(0.1, 8, **CONREG)]
    (sentence,) = facts(*runs)
    assert sentence.startswith("Con-Reg (musicnn, alpha 0.3) ")
    for word in words:
        assert word in sentence


def test_of_a_metric_that_falls_less_is_better(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = {**METRICS, "pr_auc": replace(METRICS["pr_auc"], higher_is_better=False)}
    monkeypatch.setattr("featreg.train.experiments.differences.METRICS", falling)
    (sentence,) = facts(made(0.6), made(0.5, **CONREG))
    assert "0.100 better" in sentence


def test_seeds_that_nothing_shares_give_no_difference(said: list[str]) -> None:
    (sentence,) = facts(made(0.5, 0), made(0.6, 1, **CONREG))
    assert "no seed in common" in sentence


def test_notes_are_said_once_and_unequal_test_sets_are_told(said: list[str]) -> None:
    runs = [made(said=["A.", "B."]), made(seed=1, said=["B."]), made(said=["C."], **CONREG)]
    assert notes(group(runs)) == ["A.", "B.", "C."]
    (sentence,) = notes(group([made(), made(tested="half", **CONREG)]))
    assert "same clips" in sentence
    two = [made(tested="one"), made(tested="two", dataset="other", preset="demo")]
    assert notes(group(two)) == []


def test_an_alpha_that_was_chosen_is_told(said: list[str]) -> None:
    chosen = ALPHAS["demo"]["conreg"]
    runs = [made(), made(**{**CONREG, "alpha": chosen}), made(**{**CONREG, "alpha": chosen + 1})]
    (sentence,) = alphas(group(runs))
    assert f"alpha {chosen:g} of Con-Reg" in sentence
    assert alphas(group([made(preset="default", **{**CONREG, "alpha": chosen})])) == []
    assert alphas(group([made(reg="disreg", features=("a",), alpha=chosen)])) == []
