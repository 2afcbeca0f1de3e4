"""Resuming of killed runs, and the end of failing runs on all devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lives import become_device, die, free_port, live, start
from safetensors.torch import load_file
from synthetic import write_toy

from featreg.datasets.base import FeatregError
from featreg.train.config.config import Config
from featreg.train.config.presets import Recipe
from featreg.train.evaluation.evaluate_run import evaluate_run
from featreg.train.training.checkpoint import Progress
from featreg.train.training.ddp import exit_with_parent, kill_children_on_error
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

KILLED = -9
STEPS, EPOCHS = 4, 3  # of 4 clips each

RECIPE = Recipe(
    width=2,
    crop_s=2.1,
    batch_size=4,
    schedule="published",  # a new optimizer, from the best epoch, before the second and third
    epochs=EPOCHS,
    lr=3e-3,
    clip_norm=1.0,
    chunks=2,
    feature_norm="standardize",
    precision="float32",
)
CONFIG = Config(
    dataset="toy",
    aligned="tones+noise-0.1s",
    preset="default",
    reg="conreg",
    fusion="none",
    features=("tones", "noise"),
    alpha=0.5,
    fraction=1.0,
    seed=3,
    metric="pr_auc",
    devices=1,
    recipe=RECIPE,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_toy(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(work: Path) -> RunDir:
    return lives(work, "unbroken", [("", 0, 1e9)])


def lives(work: Path, name: str, deaths: list[tuple[str, int, float]]) -> RunDir:
    """Start a run once for each of `deaths`; the last start is not killed."""
    for place, count, save_every in deaths:
        process = start(live, work, CONFIG.to_json(), name, place, count, save_every)
        process.join(120)
        assert process.exitcode == (KILLED if count else 0)
    return RunDir(work / "runs" / name)


def numbers(folder: RunDir) -> tuple[pd.DataFrame, dict[str, Any], dict[str, torch.Tensor]]:
    """Return all results of a run except its duration."""
    curves = pd.read_csv(folder.path / "metrics.csv").drop(columns="seconds")
    report = folder.read_json("report.json")
    del report["files"]  # metrics.csv holds how long epochs took
    del report["seconds"]
    return curves, report, load_file(folder.path / "model.safetensors")


def assert_equal(one: RunDir, other: RunDir) -> None:
    (curves, report, weights), (curves_2, report_2, weights_2) = numbers(one), numbers(other)
    pd.testing.assert_frame_equal(curves, curves_2, check_exact=True)
    assert report == report_2
    assert all(torch.equal(weights[name], weights_2[name]) for name in weights)
    predictions = [(each.path / "predictions.csv").read_text() for each in (one, other)]
    assert predictions[0] == predictions[1]


def test_killed_at_random_steps(work: Path, unbroken: RunDir) -> None:
    """Lives of 1 to 5 steps; the state is saved after each, or at the end of an epoch alone."""
    rng, deaths, done = np.random.default_rng(), list[tuple[str, int, float]](), 0
    while True:
        steps, save_every = int(rng.integers(1, 6)), float(rng.choice([0, 1e9]))
        if done + steps > STEPS * EPOCHS or len(deaths) > 5:
            break
        deaths.append(("step", steps, save_every))
        # The last step of an epoch counts once it is validated, and so does a step of a life
        # that saves at the end of an epoch alone.
        reached = done + steps - 1
        done = reached if save_every == 0 else max(done, reached // STEPS * STEPS)
    print("lives:", deaths)  # shown if this fails
    killed = lives(work, "random", [*deaths, ("", 0, 0.0)])
    assert_equal(unbroken, killed)
    assert not (killed.path / "state.pt").exists()


@pytest.mark.parametrize(
    ("place", "count"), [("writing", 3), ("saved", 4), ("saved", 12), ("judged", 2), ("model", 1)]
)
def test_killed_at_the_worst_moment(work: Path, unbroken: RunDir, place: str, count: int) -> None:
    name = f"{place}-{count}"
    killed = lives(work, name, [(place, count, 0.0), ("", 0, 1e9)])
    assert_equal(unbroken, killed)
    left = [path.name for path in killed.path.iterdir() if path.name.endswith(".tmp")]
    assert left == []


def test_a_saved_step_is_not_repeated(work: Path) -> None:
    lives(work, "saved-step", [("saved", 2, 0.0)])
    state = Progress.load(work / "runs/saved-step/state.pt")
    assert (state.epoch, state.step) == (0, 2)
    assert len(state.sums) == 3


def test_checkpoints_wait_for_the_interval(work: Path) -> None:
    lives(work, "patient", [("step", 3, 1e9)])
    assert not (work / "runs/patient/state.pt").exists()


def test_killed_while_an_old_run_is_removed(
    work: Path, unbroken: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives(work, "fresh", [("step", 6, 0.0)])
    folder = RunDir(work / "runs/fresh")
    removed = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        removed(path, missing_ok)
        raise KeyboardInterrupt

    while (folder.path / "config.json").exists():  # a file less each time
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            with pytest.raises(KeyboardInterrupt):
                folder.clear()
        assert not (folder.path / "state.pt").exists()
    assert [path.name for path in folder.path.iterdir()] == [".lock"]
    lives(work, "fresh", [("", 0, 1e9)])  # starts anew, not from the state of before
    assert_equal(unbroken, folder)


def test_two_processes_do_not_train_one_run(work: Path, tmp_path: Path) -> None:
    lives(work, "held", [("step", 2, 0.0)])
    folder = RunDir(work / "runs/held")
    half = folder.path / ".state.pt.0123.tmp"
    half.touch()
    held = tmp_path / "held"
    holder = start(hold, folder, held)
    while not held.is_file():
        time.sleep(0.01)
    assert not half.exists()
    half.touch()  # the other one's, from here on
    for fresh in (False, True):
        with pytest.raises(FeatregError, match=r"runs/held: another process"):
            run(CONFIG, work, name="held", fresh=fresh)
    assert half.exists()
    os.kill(int(held.read_text()), signal.SIGKILL)
    holder.join(60)
    run(CONFIG, work, name="held")  # though the process that reads for it is alive
    os.kill(int(held.with_suffix(".fork").read_text()), signal.SIGKILL)
    assert not half.exists()


def hold(folder: RunDir, held: Path) -> None:
    """Hold a run, with a process beside that reads, and outlives this one."""
    with folder.held():
        child = os.fork()
        if child == 0:
            time.sleep(600)
        held.with_suffix(".fork").write_text(str(child))
        held.with_suffix(".half").write_text(str(os.getpid()))
        held.with_suffix(".half").rename(held)
        time.sleep(600)


def test_a_state_of_another_version_is_named(work: Path) -> None:
    folder = RunDir(work / "runs" / "old")
    folder.path.mkdir()
    torch.save({"epoch": 1, "history": []}, folder.path / "state.pt")
    with pytest.raises(FeatregError, match=r"state\.pt.*'featreg-state 3'.*--fresh"):
        run(CONFIG, work, name="old")


def one_of_two(work: Path, rank: int, port: int, name: str, trouble: str, told: Path) -> None:
    """Train on one of two devices; the second one fails."""
    from featreg.train.training import fit
    from featreg.train.training.objective import Objective

    become_device(rank, port)
    torch.set_num_threads(1)
    forward = Objective.forward

    def spoilt(self: Objective, batch: Any, *scale: float) -> Any:
        losses = forward(self, batch, *scale)
        if trouble == "loss" and rank == 1 and (batch.clip == 5).any():
            return type(losses)(*(value * float("nan") for value in losses))
        return losses

    Objective.forward = spoilt  # type: ignore[method-assign]
    if trouble == "gradient":
        fit.get_total_norm = lambda gradients: torch.tensor(torch.inf)
    values = {**CONFIG.to_json(), "devices": 2}
    try:
        if trouble.startswith("death"):
            live(work, values, name, "step", int(trouble.split()[1]), 0.0)
        else:
            run(Config.from_json(values), work, name=name)
    except FeatregError as error:
        told.with_suffix(f".{rank}").write_text(str(error))
        raise SystemExit(1) from None


def two_devices(work: Path, name: str, trouble: str = "") -> tuple[list[int | None], Path]:
    port, told = free_port(), work / f"{name}.told"
    both = [start(one_of_two, work, k, port, name, trouble, told) for k in (0, 1)]
    for process in both:
        process.join(120)
        process.kill()  # nothing, if it has ended
    return [process.exitcode for process in both], told


@pytest.mark.parametrize("trouble", ["loss", "gradient"])
def test_an_error_on_one_device_ends_both_and_is_reported_once(work: Path, trouble: str) -> None:
    codes, told = two_devices(work, f"trouble-{trouble}", trouble)
    assert codes == [1, 0]
    assert not told.with_suffix(".1").exists()
    message = told.with_suffix(".0").read_text()
    clips = message.split("of the clips ")[1].split(";")[0].split(", ")
    if trouble == "loss":
        assert "epoch 1: the loss is nan in step" in message
        assert "train-00000-5" in clips
        assert len(clips) == 4  # the second device's share
    else:
        assert "epoch 1: the norm of the gradient is inf in step 1" in message
        assert len(clips) == 8


def test_two_devices_resume_like_one(work: Path) -> None:
    codes, _ = two_devices(work, "two")
    assert codes == [0, 0]
    for step in (1, 2):  # of two an epoch
        codes, _ = two_devices(work, "two-killed", f"death {step}")
        assert codes == [KILLED, KILLED]
    codes, _ = two_devices(work, "two-killed")
    assert codes == [0, 0]
    assert_equal(RunDir(work / "runs/two"), RunDir(work / "runs/two-killed"))
    assert len(pd.read_csv(work / "runs/two/metrics.csv")) == EPOCHS
    # Both devices tested one model: a single device finds what they found.
    folder = RunDir(work / "runs/two")
    found = evaluate_run(folder, work)
    expected = folder.read_json("report.json")["test"]
    assert found["metrics"] == pytest.approx(expected, abs=1e-6)


def _fabric_with(process: subprocess.Popen[bytes]) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[process])))


def test_an_error_kills_the_processes_of_other_devices() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(ValueError, match="here"), kill_children_on_error(_fabric_with(sleeper)):
        raise ValueError("here")
    assert sleeper.wait(30) == KILLED


def test_an_error_of_another_device_is_reported_as_such() -> None:
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    message = "another device failed with status 3"
    with pytest.raises(FeatregError, match=message), kill_children_on_error(_fabric_with(failed)):
        raise RuntimeError("connection closed by peer")


def parent_of_one(told: Path) -> None:
    if os.fork() == 0:
        exit_with_parent(interval_s=0.01)
        told.with_suffix(".half").write_text(str(os.getpid()))
        told.with_suffix(".half").rename(told)
        time.sleep(600)
    while not told.is_file():
        time.sleep(0.01)
    die()


def test_a_device_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    process = start(parent_of_one, tmp_path / "told")
    process.join(60)
    assert process.exitcode == KILLED
    stat = Path("/proc") / (tmp_path / "told").read_text() / "stat"
    for _ in range(1000):
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("it is still there after ten seconds")
