"""Several devices: their launchers, and equality with one device."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import torch
from lives import free_port, start
from synthetic import write_toy
from torch.nn.parallel import DistributedDataParallel
from toy_runs import CONREG

from featreg.datasets.base import Task, UsageError
from featreg.train.data.crops import Batch
from featreg.train.models.base import Output
from featreg.train.training.build import build_fabric
from featreg.train.training.find_runs import find_runs
from featreg.train.training.objective import Objective

QUICK = (
    "--preset default --width 2 --crop 2.1 --epochs 1 --chunks 2 --precision float32 --device cpu"
)
SLURM = {"SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1234", "SLURM_NODEID": "0"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_toy(tmp_path)
    return tmp_path


def train(work: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``train LINE`` in a process of its own, as Lightning starts it again for other devices."""
    return subprocess.run(
        [Path(sys.executable).parent / "train", *line.split(), *QUICK.split(), "--work", work],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {**SLURM, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
        {"RANK": "1"},
    ],
    ids=["the second task", "a rank"],
)
def test_the_launcher_does_not_matter_for_one_device(
    work: Path, environment: dict[str, str]
) -> None:
    done = train(work, "run", **environment)
    assert done.returncode == 0, done.stderr
    assert find_runs(work)[0].finished


def test_slurm_does_not_change_the_number_of_devices(work: Path) -> None:
    slurm = {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, environment in (("plain", {}), ("slurm", slurm)):
        done = train(work, f"run --devices 2 --run-name {name}", **environment)
        assert done.returncode == 0, done.stderr
    # Batches are normalized on each device: one device for two would have another loss.
    plain, inside = (
        pd.read_csv(work / "runs" / each / "metrics.csv") for each in ("plain", "slurm")
    )
    pd.testing.assert_series_equal(plain["loss"], inside["loss"], check_exact=True)


def test_torchrun_starts_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    two = build_fabric(dataclasses.replace(CONREG, devices=2), "cpu")
    assert (two.local_rank, two.world_size) == (1, 2)
    assert build_fabric(CONREG, "cpu").world_size == 1
    with pytest.raises(UsageError, match="--devices 3: torchrun started 2 processes"):
        build_fabric(dataclasses.replace(CONREG, devices=3), "cpu")


def test_more_devices_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="--devices 2: only 1 GPU"):
        build_fabric(dataclasses.replace(CONREG, devices=2), "cuda")


MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]]).float()
LABEL = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]).float()


class _Linear(torch.nn.Module):
    """A classifier of three classes without batch normalization, which would differ by device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, audio: torch.Tensor, features: object, labelled: int) -> Output:
        return Output(self.layer(audio), audio[:, None])


def task_loss(task: Task, clips: list[int], devices: int = 1) -> tuple[float, torch.Tensor]:
    """The loss of clips, and the gradient of the weights."""
    objective = Objective(_Linear(), None, 0.0, task)  # type: ignore[arg-type]
    trained = DistributedDataParallel(objective) if devices > 1 else objective
    audio = torch.arange(20.0).view(5, 4).sin()
    losses = trained(
        Batch(audio[clips], torch.empty(0), LABEL[clips], MASK[clips], torch.tensor(clips))
    )
    losses.total.backward()
    gradient = objective.tagger.layer.weight.grad
    return losses.task.item(), gradient


def one_of_two(rank: int, port: int, told: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    shares = ([0, 1, 2], [3, 4])  # nothing of the second is annotated
    found = {task: task_loss(task, shares[rank], devices=2) for task in get_args(Task)}
    torch.save(found, told / str(rank))
    torch.distributed.destroy_process_group()


def test_the_task_loss_over_devices_equals_that_of_the_whole_batch(tmp_path: Path) -> None:
    port = free_port()
    for process in [start(one_of_two, rank, port, tmp_path) for rank in (0, 1)]:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    for task in get_args(Task):
        loss, gradient = task_loss(task, [0, 1, 2, 3, 4])
        # float32 rounds at 1e-7.
        assert (first[task][0] + second[task][0]) / 2 == pytest.approx(loss, rel=1e-6)
        for _, averaged in (first[task], second[task]):
            torch.testing.assert_close(averaged, gradient)
