"""The schedules: published and short."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from featreg.train.config.presets import Recipe
from featreg.train.config.schedule import SCHEDULES, Schedule

SMALL = Recipe(width=4, crop_s=2.1, batch_size=8, epochs=3, lr=3e-3, chunks=2, precision="float32")


def test_the_published_schedule() -> None:
    schedule = Schedule("published", epochs=200, lr=1e-4)
    stages = [schedule.stage(epoch) for epoch in range(200)]
    assert [stages.count(stage) for stage in range(4)] == [60, 20, 20, 100]
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    optimizers = [schedule.optimizer(stage, parameters) for stage in range(4)]
    assert [type(each).__name__ for each in optimizers] == ["Adam", "SGD", "SGD", "SGD"]
    assert [each.param_groups[0]["lr"] for each in optimizers] == pytest.approx(
        [1e-4, 1e-3, 1e-4, 1e-5]
    )
    assert all(each.param_groups[0]["weight_decay"] == 1e-4 for each in optimizers)
    assert all(each.param_groups[0]["nesterov"] for each in optimizers[1:])
    assert schedule.rate(70, 0.5) == pytest.approx(1e-3)


def test_the_short_schedule_rises_and_falls() -> None:
    schedule = Schedule("short", epochs=20, lr=1.0)
    rates = [schedule.rate(epoch, through) for epoch in range(20) for through in (0, 0.5)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 2  # after a twentieth
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    assert rates[-1] < 0.01


@pytest.mark.parametrize("epochs", [1, 2, 5, 33])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_epoch_has_a_stage(name: str, epochs: int) -> None:
    schedule = Schedule(name, epochs, 1e-3)
    stages = [schedule.stage(epoch) for epoch in range(epochs)]
    assert stages == sorted(stages)
    assert stages[0] == 0
