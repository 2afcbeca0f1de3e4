"""Targets and weights of the loss: label smoothing, mixed labels and class weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_toy
from test_objective import _Says
from toy_runs import CONREG

from featreg.datasets.base import Task
from featreg.train.data.aligned_set import AlignedSet, Clips
from featreg.train.data.crops import Batch
from featreg.train.training.build import build_objective
from featreg.train.training.class_weights import class_weights
from featreg.train.training.objective import Objective

LOGITS = torch.tensor([[2.0, -1.0, 0.0], [0.5, 3.0, 1.0]])


def loss(label: list[list[float]], task: Task, mask: float = 1.0, **settings: object) -> float:
    values = torch.tensor(label)
    two = Batch(
        torch.empty(2, 1), torch.empty(2, 1, 0), values, torch.full_like(values, mask),
        torch.arange(2),
    )  # fmt: skip
    objective = Objective(_Says(LOGITS), None, 0.0, task, **settings)  # type: ignore[arg-type]
    return float(objective(two).task)


def cross_entropy(target: np.ndarray) -> np.ndarray:
    logits = LOGITS.numpy().astype(float)
    return -(target * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)


def binary(target: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-LOGITS.numpy().astype(float)))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


HARD = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
SOFT = [[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]]


def test_label_smoothing_in_closed_form() -> None:  # float32 rounds at 1e-7
    smooth = 0.9 * np.array(HARD) + 0.1 / 3
    found = loss(HARD, "single-label", smoothing=0.1)
    assert found == pytest.approx(cross_entropy(smooth).mean(), rel=1e-6)
    smooth = 0.9 * np.array(HARD) + 0.1 / 2
    found = loss(HARD, "multi-label", smoothing=0.1)
    assert found == pytest.approx(binary(smooth).mean(), rel=1e-6)


def test_mixed_labels_are_targets() -> None:
    found = loss(SOFT, "single-label", soft=True)
    assert found == pytest.approx(cross_entropy(np.array(SOFT)).mean(), rel=1e-6)
    found = loss(SOFT, "multi-label")
    assert found == pytest.approx(binary(np.array(SOFT)).mean(), rel=1e-6)
    # Mixed or not, the loss of a label that is certain is the same.
    assert loss(HARD, "single-label", soft=True) == pytest.approx(loss(HARD, "single-label"))


def test_weights_multiply_the_loss_of_each_label() -> None:
    weights = torch.tensor([[0.0, 0.0, 0.0], [0.5, 2.0, 4.0]])
    settings = {"weights": weights, "smoothing": 0.1, "soft": True}
    smooth = 0.9 * np.array(SOFT) + 0.1 / 3
    expected = np.mean(cross_entropy(smooth) * [0.75 * 0.5 + 0.25 * 2, 0.5 * 2 + 0.5 * 4])
    assert loss(SOFT, "single-label", **settings) == pytest.approx(expected, rel=1e-6)
    weights = torch.tensor([[0.25, 0.5, 1.0], [0.5, 2.0, 4.0]])
    each = np.where(np.array(HARD) > 0, weights[1], weights[0])
    found = loss(HARD, "multi-label", weights=weights)
    assert found == pytest.approx((binary(np.array(HARD)) * each).mean(), rel=1e-6)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_clips_without_labels_do_not_count(task: Task) -> None:
    weights = torch.ones(2, 3)
    settings = {"weights": weights, "smoothing": 0.1, "soft": True}
    assert loss([[0.0] * 3] * 2, task, mask=0.0, **settings) == 0


def clips(tmp_path: Path, label: list[list[int]], mask: list[list[int]] | None = None) -> Clips:
    found = AlignedSet(write_toy(tmp_path)).split("train").take(np.arange(len(label)))
    known = np.ones_like(label) if mask is None else np.array(mask)
    return dataclasses.replace(
        found, label=np.array(label, np.uint8), label_mask=known.astype(np.uint8)
    )


def test_class_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    utils = pytest.importorskip("sklearn.utils.class_weight")
    kinds = [0, 0, 0, 0, 0, 2, 2, 0]  # class 1 has no clip
    found = class_weights(clips(tmp_path, np.eye(3, dtype=int)[kinds].tolist()), "single-label")
    expected = utils.compute_class_weight("balanced", classes=np.array([0, 2]), y=kinds)
    assert found[1].tolist() == pytest.approx([expected[0], 0, expected[1]])
    assert not found[0].any()


def test_class_weights_of_a_multi_label_task_count_annotated_labels(tmp_path: Path) -> None:
    label = [[1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1], [1, 0, 1]]
    mask = [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]]
    # Class 0: 1 of 4 clips; class 1: 0 of 4; class 2: 3 of 3.
    found = class_weights(clips(tmp_path, label, mask), "multi-label")
    assert found[1].tolist() == pytest.approx([4 / 2 / 1, 0, 1])
    assert found[0].tolist() == pytest.approx([4 / 2 / 3, 1, 0])


def test_the_weights_are_those_of_the_labelled_clips(tmp_path: Path) -> None:
    few = clips(tmp_path, [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1]])
    recipe = dataclasses.replace(CONREG.recipe, class_weights=True)
    config = dataclasses.replace(CONREG, recipe=recipe)
    aligned = AlignedSet(tmp_path / "toy/aligned/tones+noise-0.1s")
    objective = build_objective(config, aligned, labelled=few)
    assert objective.weights is not None
    assert torch.equal(objective.weights, class_weights(few, "multi-label"))
    assert "weights" not in objective.state_dict()
    assert build_objective(CONREG, aligned, labelled=few).weights is None
