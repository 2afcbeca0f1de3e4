"""A run: its files, reproducibility and options."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from small_runs import CONCAT, CONREG, SMALL, config
from synthetic import header, write_toy

from featreg.train.config.config import Config
from featreg.train.config.schedule import Schedule
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.training.build import build_objective
from featreg.train.training.fit import Fit
from featreg.train.training.run import _Run, run
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(work: Path) -> RunDir:
    return run(CONREG, work)


def numbers(folder: RunDir) -> tuple[pd.DataFrame, Mapping[str, float], dict[str, torch.Tensor]]:
    """Return all results of a run except its duration."""
    curves = pd.read_csv(folder.path / "metrics.csv").drop(columns="seconds")
    return (
        curves,
        folder.read_json("report.json")["test"],
        load_file(folder.path / "model.safetensors"),
    )


def assert_equal(one: RunDir, other: RunDir, but: str | None = None) -> None:
    (curves, test, weights), (curves_2, test_2, weights_2) = numbers(one), numbers(other)
    for name in curves.columns.drop(but or []):
        pd.testing.assert_series_equal(curves[name], curves_2[name], check_exact=True)
    assert test == test_2
    assert weights.keys() == weights_2.keys()
    assert all(torch.equal(weights[name], weights_2[name]) for name in weights)


def test_the_files_of_a_finished_run(finished: RunDir) -> None:
    about = finished.read_json("config.json")
    assert Config.from_json(about["config"]) == CONREG
    assert about["data"]["clips"] == {"train": 16, "valid": 8, "test": 9}
    assert about["data"]["notes"] == ["Tones, not music."]
    assert {"featreg", "python", "torch"} <= about["versions"].keys()
    assert about["parameters"]["training"] - about["parameters"]["inference"] == 7 * 8 + 8  # f
    curves = pd.read_csv(finished.path / "metrics.csv")
    assert curves["epoch"].tolist() == [1, 2, 3]
    assert curves["loss"].iloc[-1] < curves["loss"].iloc[0]
    np.testing.assert_allclose(
        curves["loss"], curves["task_loss"] + 0.5 * curves["reg_loss"], rtol=1e-6
    )
    predictions = pd.read_csv(finished.path / "predictions.csv", index_col="clip_id")
    names = ["low", "middle", "high"]
    assert predictions.columns.tolist() == [*names, *(f"true:{name}" for name in names)]
    assert predictions.index.tolist() == [f"test-00000-{k}" for k in range(9)]
    assert predictions.to_numpy().min() >= 0
    assert predictions.to_numpy().max() <= 1
    with np.load(finished.path / "embeddings.npz") as arrays:
        assert arrays["embedding"].shape == (9, 8)
        assert arrays["clip_id"].tolist() == predictions.index.tolist()
        assert arrays["label"].tolist() == predictions.iloc[:, 3:].to_numpy().tolist()
    assert not (finished.path / "state.pt").exists()


def test_the_best_epoch_is_kept(finished: RunDir) -> None:
    curves = pd.read_csv(finished.path / "metrics.csv")
    report = finished.read_json("report.json")
    assert report["best_epoch"] == curves["epoch"][curves["valid_pr_auc"].idxmax()]
    assert report["valid"]["pr_auc"] == pytest.approx(curves["valid_pr_auc"].max(), rel=1e-12)


def test_the_model_of_a_regularized_run_is_the_plain_model(finished: RunDir, work: Path) -> None:
    plain = build_objective(config(), AlignedSet(work / "toy/aligned/tones+noise-0.1s")).tagger
    stored = load_file(finished.path / "model.safetensors")
    assert stored.keys() == plain.state_dict().keys()
    plain.load_state_dict(stored)


def test_equal_seeds_give_equal_numbers(finished: RunDir, work: Path) -> None:
    assert_equal(finished, run(CONREG, work, name="again"))


def test_workers_change_nothing(finished: RunDir, work: Path) -> None:
    assert_equal(finished, run(CONREG, work, name="two-workers", workers=2))


def test_another_seed_gives_other_numbers(finished: RunDir, work: Path) -> None:
    other = run(dataclasses.replace(CONREG, seed=1), work)
    assert numbers(other)[1] != numbers(finished)[1] or not numbers(other)[0].equals(
        numbers(finished)[0]
    )


def test_methods_start_from_the_same_weights(work: Path) -> None:
    aligned = AlignedSet(work / "toy/aligned/tones+noise-0.1s")
    plain, regularized = (build_objective(each, aligned).tagger for each in (config(), CONREG))
    for one, other in zip(plain.parameters(), regularized.parameters(), strict=True):
        assert torch.equal(one, other)


def test_alpha_zero_is_the_baseline(work: Path) -> None:
    plain, weightless = run(config(), work), run(dataclasses.replace(CONREG, alpha=0.0), work)
    assert_equal(plain, weightless, but="reg_loss")


@pytest.mark.parametrize("changes", [{"fusion": "concat"}, {"fusion": "features"}])
def test_fusions_train(work: Path, changes: dict[str, Any]) -> None:
    folder = run(dataclasses.replace(CONCAT, **changes), work)
    assert folder.read_json("report.json")["test"]["pr_auc"] > 0.5


def test_bfloat16_gives_similar_results(finished: RunDir, work: Path) -> None:
    recipe = dataclasses.replace(SMALL, precision="bf16-mixed")
    folder = run(dataclasses.replace(CONREG, recipe=recipe), work, name="bf16")
    precise, rough = numbers(finished)[0], numbers(folder)[0]
    assert not rough["loss"].equals(precise["loss"])
    # 8 bits: 0.4 % a rounding, over the steps of three epochs
    np.testing.assert_allclose(rough["loss"], precise["loss"], rtol=0.03)
    assert all(
        v.dtype == torch.float32 for v in numbers(folder)[2].values() if v.is_floating_point()
    )


def test_dropout_differs_between_steps_and_devices() -> None:
    def draw(epoch: int, step: int, rank: int) -> float:
        device = SimpleNamespace(config=CONREG, fabric=SimpleNamespace(global_rank=rank))
        Fit._seed(device, epoch, step)  # type: ignore[arg-type]
        return float(torch.rand(()))

    places = list(itertools.product(range(3), range(3), range(2)))
    draws = [draw(*place) for place in places]
    assert len(set(draws)) == len(draws)
    assert [draw(*place) for place in places] == draws


def test_gradients_are_clipped_to_the_norm(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    clip = Fit._clip_gradient

    def watch(self: Fit) -> torch.Tensor:
        norm = clip(self)
        left = [p.grad.norm() for p in self.objective.parameters() if p.grad is not None]
        seen.append((float(norm), float(torch.stack(left).norm())))
        return norm

    monkeypatch.setattr(Fit, "_clip_gradient", watch)
    recipe = dataclasses.replace(SMALL, clip_norm=0.1, epochs=1)
    run(config(recipe=recipe), work, name="clipped")
    assert all(before > 0.1 for before, _ in seen)
    # clipping divides by the norm plus 1e-6
    assert [after for _, after in seen] == pytest.approx([0.1] * len(seen), rel=1e-4)


def test_a_single_label_task_trains(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(task="single-label"))
    folder = run(config(metric="accuracy"), tmp_path)
    predictions = pd.read_csv(folder.path / "predictions.csv", index_col="clip_id")
    probabilities = predictions.iloc[:, :3]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=3e-6)  # six decimals of three
    matrix = np.array(folder.read_json("report.json")["confusion"])
    truth = predictions.iloc[:, 3:].to_numpy()
    assert matrix.sum(axis=1).tolist() == truth.sum(axis=0).tolist()
    accuracy = folder.read_json("report.json")["test"]["accuracy"]
    assert matrix.trace() == pytest.approx(9 * accuracy)


def test_patience_ends_training(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(_Run, "_metrics", lambda *_: {"pr_auc": next(values)})
    recipe = dataclasses.replace(SMALL, epochs=9, patience=2)
    folder = run(config(recipe=recipe), work, name="patient")
    assert len(pd.read_csv(folder.path / "metrics.csv")) == 4
    assert folder.read_json("report.json")["best_epoch"] == 2


def test_the_standardization_is_stored_with_the_run(work: Path) -> None:
    recipe = dataclasses.replace(SMALL, feature_norm="standardize", epochs=1)
    folder = run(dataclasses.replace(CONCAT, recipe=recipe), work)
    with np.load(folder.path / "scaling.npz") as scaling:
        assert scaling["mean"].shape == scaling["std"].shape == (4,)
        assert scaling["mean"][0] == pytest.approx(14.5)  # rows 0 to 29


def test_a_new_stage_starts_from_the_best_epoch(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(_Run, "_metrics", lambda *_: {"pr_auc": next(values)})
    train = Fit._train

    def watch(self: Fit, epoch: int, *rest: Any) -> dict[str, float]:
        weights = torch.cat([p.detach().flatten() for p in self.objective.parameters()])
        seen.append(weights.clone())
        return train(self, epoch, *rest)

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(Fit, "_train", watch)
    recipe = dataclasses.replace(SMALL, schedule="published", epochs=4, lr=1e-3)
    assert [Schedule("published", 4, 1.0).stage(k) for k in range(4)] == [0, 1, 3, 3]
    run(config(recipe=recipe), work, name="stages")
    after_best = seen[1]  # epoch 1 was the best: every new stage begins there
    assert torch.equal(seen[2], after_best)
    assert not torch.equal(seen[3], after_best)  # within a stage training goes on
