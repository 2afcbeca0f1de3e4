"""Sweeps: finished runs are not repeated, parallel runs, and errors."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import write_toy

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.config.config import Config
from featreg.train.config.options import configure
from featreg.train.experiments import sweep as many
from featreg.train.experiments.sweep import Runner, environments
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir
from featreg.train.training.versions import command_line


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_toy(tmp_path)
    return tmp_path


def toy_config(work: Path, seed: int = 0, **recipe: object) -> Config:
    small = {"width": 2, "crop_s": 2.1, "epochs": 1, "chunks": 2, "precision": "float32"}
    nothing = dict.fromkeys(("dataset", "aligned", "preset", "features", "metric"))
    asked = {"reg": "none", "fusion": "none", "fraction": 1.0, "seed": seed, "devices": 1}
    return configure(work, "cpu", {**nothing, **asked, **small, **recipe})


def test_what_is_done_is_not_repeated(work: Path) -> None:
    runner = Runner(work)
    config = toy_config(work)
    runner.run([config, config])
    path = work / "runs" / config.run_name / "report.json"
    before = path.stat().st_mtime_ns
    runner.run([config])
    Runner(work).run([config])
    assert path.stat().st_mtime_ns == before
    fresh = Runner(work, fresh=True)
    fresh.run([config])
    once = path.stat().st_mtime_ns
    assert once > before
    fresh.run([config])  # it made this one itself
    assert path.stat().st_mtime_ns == once


def test_another_run_of_that_name_is_refused_before_training(work: Path) -> None:
    config, first = toy_config(work), toy_config(work, seed=1)
    Runner(work).run([config])
    for shard in (work / "toy" / "aligned" / "tones+noise-0.1s").glob("valid*"):
        shard.rename(shard.with_name("valid-00007.h5"))
    with pytest.raises(UsageError, match="the aligned shards have changed"):
        Runner(work).run([first, config])
    assert not (work / "runs" / first.run_name).exists()


def test_two_runs_of_one_name_are_refused_before_training(work: Path) -> None:
    first, second = (
        dataclasses.replace(toy_config(work), reg="conreg", features=("tones",), alpha=alpha)
        for alpha in (0.3, 0.3000001)
    )
    assert first.run_name == second.run_name
    with pytest.raises(UsageError, match=r", with alpha 0\.3 and 0\.3000001"):
        Runner(work).run([first, first, second])
    assert not (work / "runs").exists()


def test_run_name_is_not_advised_for_sweeps(work: Path) -> None:
    config = toy_config(work)
    Runner(work).run([config])
    precise = dataclasses.replace(config.recipe, precision="bf16-mixed")
    with pytest.raises(UsageError, match="--fresh") as raised:
        Runner(work).run([dataclasses.replace(config, recipe=precise)])
    assert "precision (float32, not bf16-mixed)" in str(raised.value)
    assert "--run-name" not in str(raised.value)


def test_runs_on_two_aligned_sets_have_different_names(work: Path) -> None:
    config = toy_config(work)
    write_toy(work, aligned="other", seconds=2.5)
    other = dataclasses.replace(config, aligned="other")
    runner = Runner(work)
    for _ in range(2):
        runner.run([config])
        runner.run([other])
    names = [config.run_name, f"{config.run_name}-other"]
    found = [RunDir(work / "runs" / name).config() for name in names]
    assert [each.aligned for each in found] == ["tones+noise-0.1s", "other"]
    assert runner.groups([[other]])[0].results[0].folder.name == names[1]


def test_other_runs_are_trained_after_a_failure(work: Path) -> None:
    good, bad = toy_config(work), toy_config(work, seed=1, crop_s=0.1)
    with pytest.raises(FeatregError, match="the same command again") as raised:
        Runner(work).run([bad, good])
    with pytest.raises(FeatregError, match="the same command without --fresh again"):
        Runner(work, fresh=True).run([bad, good])
    assert "1 of 2 runs failed" in str(raised.value)
    assert f"{bad.run_name}: " in str(raised.value)
    assert "at least 32512 samples, got 1600" in str(raised.value)
    assert RunDir(work / "runs" / good.run_name).finished


def test_other_runs_are_trained_after_an_unexpected_error(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = toy_config(work), toy_config(work, seed=1)

    def broken(config: Config, *rest: Any, **options: Any) -> RunDir:
        if config == bad:
            raise RuntimeError("shapes\ndo not fit")
        return run(config, *rest, **options)

    monkeypatch.setattr("featreg.train.training.run.run", broken)
    with pytest.raises(FeatregError, match="1 of 2 runs failed") as raised:
        Runner(work).run([bad, good])
    log = work / "runs" / bad.run_name / many.LOG
    assert f"{bad.run_name}: RuntimeError: shapes do not fit ({log})" in str(raised.value)
    assert "Traceback" in log.read_text()
    assert RunDir(work / "runs" / good.run_name).finished
    monkeypatch.undo()
    Runner(work).run([bad])  # the log alone keeps no run from being made


def test_parallel_runs_give_the_same_results_and_reasons_of_failures(work: Path) -> None:
    good, bad = toy_config(work), toy_config(work, seed=2, crop_s=0.1)
    with pytest.raises(FeatregError, match="1 of 2 runs failed") as raised:
        Runner(work, jobs=2).run([good, bad])
    log = work / "runs" / bad.run_name / many.LOG
    assert f"(exit status 2; {log})" in str(raised.value)
    assert "at least 32512 samples, got 1600" in str(raised.value)
    about = RunDir(work / "runs" / good.run_name).read_json("config.json")
    assert about["command"] == command_line()  # of the sweep, not of the process that it started
    assert about["machine"]["threads"] == max(1, many.cores() // 2)

    [apart] = Runner(work).groups([[good]])[0].results
    value, embedding = apart.report["test"]["pr_auc"], apart.embeddings()["embedding"]
    Runner(work, jobs=1, fresh=True).run([good])
    [here] = Runner(work).groups([[good]])[0].results
    assert here.report["test"]["pr_auc"] == pytest.approx(value)
    # Another number of threads adds in another order.
    np.testing.assert_allclose(here.embeddings()["embedding"], embedding, atol=1e-3)


def test_a_run_on_several_devices_has_a_process_of_its_own(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning starts the process again for each device, which must not train several runs."""
    apart: list[str] = []

    def process(runner: Runner, config: Config, *_: object) -> str | None:
        apart.append(config.run_name)
        return "it failed" if config.seed == 0 else None

    monkeypatch.setattr(Runner, "_process", process)
    first, second = (dataclasses.replace(toy_config(work, seed=seed), devices=2) for seed in (0, 1))
    with pytest.raises(FeatregError, match="1 of 2 runs failed"):
        Runner(work, jobs=1).run([first, second])
    assert apart == [first.run_name, second.run_name]


def test_no_process_outlives_an_interruption(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = work / "pids"
    pids.mkdir()
    sleeper = f"import os, pathlib, time; pathlib.Path({str(pids)!r}, str(os.getpid())).touch(); "

    def interrupted(waiting: Sequence[object]) -> None:
        while len(list(pids.iterdir())) < 2:
            time.sleep(0.02)
        raise KeyboardInterrupt

    command, popen = [sys.executable, "-c", sleeper + "time.sleep(600)"], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: popen(command, **options))
    monkeypatch.setattr(many, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Runner(work, jobs=2).run([toy_config(work, seed) for seed in range(4)])
    started = list(pids.iterdir())
    assert len(started) == 2  # the other two were never begun
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.name), 0)


def test_every_gpu_has_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_gpus", lambda: ["0", "1", "3", "5"])
    monkeypatch.setattr(many, "cores", lambda: 16)

    def gpus(devices: int, jobs: int | None = None) -> list[str]:
        return [place["CUDA_VISIBLE_DEVICES"] for place in environments("cuda", devices, jobs)]

    assert gpus(1) == ["0", "1", "3", "5"]
    assert gpus(2) == ["0,1", "3,5"]
    assert gpus(3) == ["0,1,3"]
    assert gpus(1, jobs=2) == ["0", "1"]
    assert gpus(2, jobs=3) == ["0,1", "3,5", "0,1"]
    assert {place["OMP_NUM_THREADS"] for place in environments("cuda", 1, None)} == {"4"}


def test_more_devices_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_gpus", lambda: ["0"])
    with pytest.raises(UsageError, match="--devices 2: only 1 GPU"):
        environments("cuda", 2, None)


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "cores", lambda: 8)
    assert environments("cpu", 1, None) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert environments("cpu", 1, 3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments("cpu", 1, 9) == [{"OMP_NUM_THREADS": "1"}] * 9
    assert environments("cpu", 2, None) == [{"OMP_NUM_THREADS": "4"}]
    assert environments("cpu", 4, 2) == [{"OMP_NUM_THREADS": "1"}] * 2
    monkeypatch.setattr(many, "cores", lambda: 2)
    assert len(environments("cpu", 1, None)) == 1  # one after another


def test_the_gpus_that_are_visible_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-abc")
    assert many._gpus() == ["2", "GPU-abc"]
