"""Several devices: who starts them, and that they train as one."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic import write_toy
from toy_runs import CONREG

from featreg.datasets.base import UsageError
from featreg.train.build import build_fabric
from featreg.train.runs import find_runs

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
def test_a_run_on_one_device_is_a_run_whatever_started_it(
    work: Path, environment: dict[str, str]
) -> None:
    done = train(work, "run", **environment)
    assert done.returncode == 0, done.stderr
    assert find_runs(work)[0].finished


def test_devices_are_as_many_in_a_job_of_slurm(work: Path) -> None:
    slurm = {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, environment in (("plain", {}), ("slurm", slurm)):
        done = train(work, f"run --devices 2 --run-name {name}", **environment)
        assert done.returncode == 0, done.stderr
    # Batches are normalised on each device: one device for two would have another loss.
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
    with pytest.raises(UsageError, match="--devices 2: 1 GPU here"):
        build_fabric(dataclasses.replace(CONREG, devices=2), "cuda")
