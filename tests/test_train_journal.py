"""Learning curves: a CSV file, and TensorBoard logs on request, without repetitions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from featreg.datasets.base import UsageError
from featreg.train.cli.train import train
from featreg.train.training.checkpoint import Progress
from featreg.train.training.metrics_log import MetricsLog, require_tensorboard

STEPS = 3


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "lr": 0.1, "loss": 1 / epoch, "valid_pr_auc": 0.1 * epoch, "seconds": 1}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values that TensorBoard shows, by tag."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events: Any = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def train_epoch(log: MetricsLog, state: Progress, stop: int = STEPS) -> None:
    for step in range(state.step, stop):
        log.step(state.epoch * STEPS + step, float(state.epoch * STEPS + step))
    if stop == STEPS:
        state.epoch, state.step = state.epoch + 1, 0
        state.history.append(row(state.epoch))
        log.epoch(state.history)


def test_an_interrupted_run_has_the_curves_of_an_uninterrupted_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    state = Progress()
    log = MetricsLog(tmp_path, state, STEPS, tensorboard=True)
    train_epoch(log, state)
    train_epoch(log, state, stop=2)  # killed here, with what was saved after one step
    log.close()
    state.step = 1
    log = MetricsLog(tmp_path, state, STEPS, tensorboard=True)
    train_epoch(log, state)
    log.close()
    found = curves(tmp_path)
    assert found["step/loss"] == [(step, float(step)) for step in range(6)]
    assert [step for step, _ in found["valid/pr_auc"]][-1] == 6
    assert {step for step, _ in found["valid/pr_auc"]} == {3, 6}
    assert found["train/lr"][-1] == (6, pytest.approx(0.1))


def test_a_missing_csv_is_written_on_resuming(tmp_path: Path) -> None:
    """A run may be killed after its state was saved, and before its curves were."""
    MetricsLog(tmp_path, Progress(epoch=2, history=[row(1), row(2)]), STEPS, tensorboard=False)
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [1, 2]
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_package_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[tensorboard\]'"):
        require_tensorboard()


def test_the_state_is_saved_each_minute_by_default() -> None:
    text = " ".join(CliRunner().invoke(train, ["run", "--help"]).output.split())
    assert "--save-every SECONDS" in text
    assert "[default: 60.0; x>=0]" in text
