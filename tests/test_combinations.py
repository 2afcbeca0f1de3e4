"""Combinations of regularizers, schedules of their weights, and normalized features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import header, write_toy
from toy_runs import CONREG, call

from featreg.datasets.base import UsageError
from featreg.train.config.config import Config
from featreg.train.config.method import alphas_of, require_scores
from featreg.train.config.schedule import alpha_scale
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.data.clip_reader import ClipReader
from featreg.train.data.crops import Scaling
from featreg.train.experiments.choose_alpha import with_alphas
from featreg.train.regularizers.combination import Combination
from featreg.train.regularizers.disreg import DisReg
from featreg.train.regularizers.registry import build_regularizer, default_norm
from featreg.train.training.build import build_objective
from featreg.train.training.find_runs import find_runs
from featreg.train.training.objective import Objective
from featreg.train.training.run import run

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = dataclasses.replace(CONREG, reg="hint+disreg", alpha=5.0, more_alphas=(0.5,))


def test_a_combination_is_the_weighted_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    parts = [build_regularizer(name, 5, 4) for name in ("hint", "disreg", "rkd")]
    known = [part for part in parts if part is not None]
    both = Combination(known, (5.0, 0.5, 0.0))
    l, v = torch.randn(6, 3, 4, requires_grad=True), torch.randn(6, 7, 5)  # noqa: E741
    mask = torch.tensor([1, 1, 0, 1, 1, 1])
    expected = 5 * known[0](l, v, mask) + 0.5 * known[1](l, v, mask)
    torch.testing.assert_close(both(l, v, mask), expected)
    assert len(list(both.parameters())) == 4  # g of hint


def test_the_total_is_the_task_plus_the_weighted_sum(work: Path) -> None:
    folder = run(BOTH, work)
    assert folder.name.startswith("toy-hint+disreg-tones+noise-a5+0.5-")
    assert folder.config() == BOTH
    curves = pd.read_csv(folder.path / "metrics.csv")
    np.testing.assert_allclose(curves["loss"], curves["task_loss"] + curves["reg_loss"], rtol=1e-6)
    objective = build_objective(BOTH, AlignedSet(work / "toy/aligned/tones+noise-0.1s"))
    assert isinstance(objective.regularizer, Combination)
    assert objective.regularizer.weights == (5.0, 0.5)
    assert isinstance(objective.regularizer.parts[1], DisReg)


@pytest.mark.parametrize(
    ("name", "done", "factor"),
    [
        ("constant", 0.0, 1.0),
        ("constant", 0.99, 1.0),
        ("warmup", 0.0, 0.0),
        ("warmup", 0.05, 0.5),
        ("warmup", 0.1, 1.0),
        ("warmup", 0.7, 1.0),
        ("decay", 0.0, 1.0),
        ("decay", 1 / 3, 0.75),
        ("decay", 0.5, 0.5),
        ("decay", 1.0, 0.0),
    ],
)
def test_schedules_of_alpha(name: str, done: float, factor: float) -> None:
    assert alpha_scale(name, done) == pytest.approx(factor, abs=1e-12)


def test_the_weight_follows_its_schedule(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []
    forward = Objective.forward

    def watch(self: Objective, batch: object, scale: float = 1.0) -> object:
        scales.append(scale)
        losses = forward(self, batch, scale)  # type: ignore[arg-type]
        torch.testing.assert_close(losses.total, losses.task + scale * 0.5 * losses.regularization)
        return losses

    monkeypatch.setattr(Objective, "forward", watch)
    folder = run(dataclasses.replace(CONREG, alpha_schedule="decay"), work)
    assert "alphascheduledecay" in folder.name
    assert scales == pytest.approx([alpha_scale("decay", k / 4) for k in range(4)])


def test_features_can_be_centered(work: Path) -> None:
    recipe = dataclasses.replace(CONREG.recipe, feature_norm="center", epochs=1)
    folder = run(dataclasses.replace(CONREG, recipe=recipe), work)
    clips = AlignedSet(work / "toy/aligned/tones+noise-0.1s").split("train")
    expected = Scaling.of(ClipReader(clips, {"tones": 4, "noise": 3}))
    with np.load(folder.path / "scaling.npz") as scaling:
        np.testing.assert_array_equal(scaling["mean"], expected.mean)
        assert (scaling["std"] == 1).all()


@pytest.mark.parametrize(
    ("reg", "norm"),
    [
        ("conreg", "none"),
        ("hint", "standardize"),
        ("hint+disreg", "standardize"),
        ("hint+scores", "none"),
    ],
)
def test_the_normalization_suits_the_regularizer(reg: str, norm: str) -> None:
    assert default_norm(reg) == norm


def test_weights_have_defaults() -> None:
    assert alphas_of("hint+disreg", "default", None) == (5.0, 1.0)
    assert alphas_of("conreg+hint", "demo", None) == (1.0, 5.0)
    assert alphas_of("none", "default", None) == ()


def test_scores_need_class_scores() -> None:
    outputs = {
        "mn04": {"settings": {"output": "pooled"}},
        "tags": {"settings": {"output": "taggram"}},
        "own": {},
    }
    require_scores("scores", "none", ("tags", "own"), outputs)
    require_scores("hint", "standardize", ("mn04",), outputs)
    with pytest.raises(UsageError, match=r"--reg scores: mn04 \(output=pooled\)"):
        require_scores("scores", "none", ("tags", "mn04"), outputs)
    with pytest.raises(UsageError, match=r"--reg hint\+scores --feature-norm center"):
        require_scores("hint+scores", "center", ("tags",), outputs)


def test_one_weight_at_a_time_is_chosen() -> None:
    with pytest.raises(UsageError, match=r"--reg hint\+disreg"):
        with_alphas(BOTH, [0.1, 1.0])


QUICK = "--encoder mel_cnn --width 2 --crop 1 --epochs 1 --chunks 2 --precision float32"


def test_a_combination_as_it_is_typed(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header())
    line = "run --reg hint+disreg --alpha 1e+1+0.5 --alpha-schedule warmup"
    result = call(tmp_path, *line.split(), *QUICK.split())
    assert result.exit_code == 0, result.output
    [folder] = find_runs(tmp_path)
    config: Config = folder.config()
    assert (config.reg, config.alphas) == ("hint+disreg", (10.0, 0.5))
    assert (config.alpha_schedule, config.recipe.feature_norm) == ("warmup", "standardize")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--reg hint+disreg --alpha 1", "expected 2 weights, found 1"),
        ("--reg hint --alpha 1+2", "expected 1 weights, found 2"),
        ("--reg hint+nonsense", "'nonsense' is not one of"),
        ("--reg hint+hint", "give each name only once"),
        ("--reg none+hint", "give each name only once"),
        ("--reg hint+disreg --alpha 1+nan", "expected a finite number, found nan"),
        ("--reg hint+disreg --alpha 1+", "'' is not a valid float"),
        ("--alpha-schedule decay", "select one with --reg"),
        ("--reg scores --feature-norm center", "needs probabilities"),
        ("--reg hint+disreg --fusion features", "no embedding to regularize"),
    ],
)
def test_invalid_options_are_one_line(work: Path, arguments: str, message: str) -> None:
    result = call(work, "run", *arguments.split())
    assert result.exit_code == 2
    assert message in result.output
