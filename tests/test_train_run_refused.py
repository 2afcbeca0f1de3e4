"""Runs that are refused, repeated or end with an error."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from small_runs import CONREG, SMALL, config
from synthetic import header, write_toy

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.data.crops import Batch
from featreg.train.training.objective import Objective
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(work: Path) -> RunDir:
    return run(CONREG, work)


def test_a_finished_run_is_not_repeated(finished: RunDir, work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.path.iterdir()}
    assert run(CONREG, work) == finished
    assert {path: path.stat().st_mtime_ns for path in finished.path.iterdir()} == before


def test_another_run_of_the_same_name_is_refused(finished: RunDir, work: Path) -> None:
    other = dataclasses.replace(CONREG, recipe=dataclasses.replace(SMALL, epochs=1))
    with pytest.raises(UsageError, match=r"epochs \(3, not 1\).*--run-name.*--fresh"):
        run(other, work, name=finished.name)


def test_fresh_replaces_a_run(work: Path) -> None:
    short = dataclasses.replace(SMALL, epochs=1)
    run(config(recipe=short), work, name="fresh")
    longer = config(recipe=dataclasses.replace(short, epochs=2))
    folder = run(longer, work, name="fresh", fresh=True)
    assert folder.config() == longer


@pytest.mark.parametrize("name", ["", ".", "..", "../toy", "deep/er", "/tmp/elsewhere", "slash/"])
def test_the_run_name_must_be_the_name_of_a_folder(work: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"--run-name {re.escape(name)}: expected the name of a"):
        run(config(), work, name=name, fresh=True)
    assert (work / "toy/clips.csv").is_file()


def test_fresh_deletes_only_runs(work: Path) -> None:
    notes = work / "runs/notes/notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(UsageError, match=r"runs/notes: .*--fresh.*notes\.txt"):
        run(config(), work, name="notes", fresh=True)
    assert [path.name for path in notes.parent.iterdir()] == ["notes.txt"]
    notes.rename(notes.with_name("log.txt"))  # of a run that was killed as it began
    RunDir(notes.parent).clear()
    assert [path.name for path in notes.parent.iterdir()] == [".lock"]


def test_different_shards_are_named_with_both_values(tmp_path: Path) -> None:
    short = config(recipe=dataclasses.replace(SMALL, epochs=1))
    write_toy(tmp_path)
    run(short, tmp_path)
    write_toy(tmp_path, about=header(resolution_s=0.3, classes=("low", "high", "middle")))
    with pytest.raises(
        UsageError, match=r"classes \(\['low', 'middle', 'high'\], not \['low'"
    ) as it:
        run(short, tmp_path)
    assert "resolution_s (0.1, not 0.3)" in str(it.value)


def test_a_run_of_another_version_names_both_versions(tmp_path: Path) -> None:
    write_toy(tmp_path)
    folder = RunDir(tmp_path / "runs" / "old")
    folder.path.mkdir(parents=True)
    (folder.path / "config.json").write_text('{"format": "featreg-run", "version": 9}')
    with pytest.raises(FeatregError, match="version 2, found featreg-run version 9"):
        run(config(), tmp_path, name="old")


def test_a_split_without_a_score_is_found_before_training(tmp_path: Path) -> None:
    folder = write_toy(tmp_path)
    with h5py.File(folder / "test-00000.h5", "r+") as shard:
        shard["label"][...] = 1
    with pytest.raises(FeatregError, match="split test: macro ROC-AUC"):
        run(config(), tmp_path)
    assert not (tmp_path / "runs").exists()


def test_fewer_clips_than_devices_are_found_before_training(tmp_path: Path) -> None:
    write_toy(tmp_path, {"train": (9,), "valid": (8,), "test": (2,)})
    with pytest.raises(UsageError, match=r"split test: clips: 2, devices: 3; .*--devices"):
        run(config(devices=3), tmp_path)
    assert not (tmp_path / "runs").exists()


CPU_IS_FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 3 bytes."


@pytest.mark.parametrize(
    ("error", "precision", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "float32", "GPU memory; .*bf16-mixed$"),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            "bf16-mixed",
            r"GPU memory; .* --width \(4\)$",
        ),
        (RuntimeError(CPU_IS_FULL), "float32", r"memory; .*8\), --crop \(2\.1\)"),
        (MemoryError(), "float32", r"memory; .*--batch-size \(now 8\)"),
    ],
)
def test_too_little_memory_is_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, precision: str, message: str
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(Objective, "forward", full)
    recipe = dataclasses.replace(SMALL, precision=precision)
    with pytest.raises(FeatregError, match=f"^big: out of {message}"):
        run(config(recipe=recipe), work, name="big", fresh=True)


def test_a_crop_larger_than_memory_is_one_line(work: Path) -> None:
    # 512 TB: more than a process can address, so that no kernel promises it.
    recipe = dataclasses.replace(SMALL, encoder="mel_cnn", crop_s=1e9)
    with pytest.raises(FeatregError, match=r"^long: out of memory; .*--crop \(1e\+09\)"):
        run(config(recipe=recipe), work, name="long")


def test_other_errors_are_not_converted(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Objective, "forward", broken)
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        run(config(), work, name="buggy")


def test_changed_shards_are_another_run(tmp_path: Path) -> None:
    write_toy(tmp_path)
    run(config(), tmp_path)
    write_toy(tmp_path, seconds=2.5)
    with pytest.raises(UsageError, match="data"):
        run(config(), tmp_path)


def test_a_damaged_state_is_named(work: Path) -> None:
    folder = RunDir(work / "runs" / "broken")
    folder.path.mkdir()
    (folder.path / "state.pt").write_bytes(b"no state")
    with pytest.raises(FeatregError, match=r"state\.pt.*--fresh"):
        run(config(), work, name="broken")


def test_the_clips_of_a_loss_that_is_not_finite_are_named(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward

    def spoilt(self: Objective, batch: Batch, *scale: float) -> Any:
        factor = float("nan") if (batch.clip == 5).any() else 1.0
        losses = forward(self, batch, *scale)
        return type(losses)(*(value * factor for value in losses))

    monkeypatch.setattr(Objective, "forward", spoilt)
    with pytest.raises(
        FeatregError, match=r"epoch 1: the loss is nan in step 2, .*train-00000-5\b"
    ):
        run(config(seed=9), work)
