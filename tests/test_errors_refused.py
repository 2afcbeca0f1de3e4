"""``train errors`` with runs, files and shards that cannot be used: one line, and the status."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import h5py
import pytest
from damaged_files import flipped
from synthetic import write_toy
from toy_runs import CONREG, call

from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def copied(work: Path, trained: RunDir, concat: RunDir, tmp_path: Path) -> Path:
    """A copy of the working folder, to be damaged."""
    for name in ("toy", "runs/trained", "runs/concat"):
        shutil.copytree(work / name, tmp_path / name)
    return tmp_path


def refused(work: Path, *arguments: str | Path, status: int = 1) -> str:
    """The message of a command that fails with a status and writes nothing."""
    result = call(work, "errors", *arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert not list(work.glob("reports/*.html"))
    return result.output


def test_runs_that_cannot_be_used(copied: Path) -> None:
    assert "nowhere: no such run" in refused(copied, "nowhere", status=2)
    assert "concat, trained" in refused(copied, status=2)
    (copied / "runs/concat/report.json").unlink()
    assert "not finished" in refused(copied, "concat")


def test_a_pretraining_has_no_predictions(copied: Path) -> None:
    run(dataclasses.replace(CONREG, pretrain=True, metric="reg_loss"), copied, "teacher")
    assert "teacher: a pretraining" in refused(copied, "teacher", status=2)


@pytest.mark.parametrize(
    "name", ["config.json", "report.json", "predictions.csv", "embeddings.npz"]
)
def test_damaged_files_of_the_run(copied: Path, name: str) -> None:
    path = copied / "runs/trained" / name
    contents = path.read_bytes()
    path.write_bytes(flipped(contents, 8 * (len(contents) // 2)))
    assert str(path) in refused(copied, "trained")
    path.write_bytes(contents[:20])
    assert str(path) in refused(copied, "trained")
    path.unlink()
    if not name.endswith(".json"):  # without one of these, it is not a finished run
        assert name in refused(copied, "trained")


def test_a_damaged_model_is_named_if_clips_are_predicted(copied: Path) -> None:
    path = copied / "runs/trained/model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert "model.safetensors" in refused(copied, "trained", "--split", "valid")
    assert call(copied, "errors", "trained").exit_code == 0  # reads predictions.csv


def test_shards_that_cannot_be_used(copied: Path) -> None:
    folder = copied / "toy/aligned/tones+noise-0.1s"
    path = folder / "test-00000.h5"
    contents = path.read_bytes()
    for bit in (8 * (len(contents) // 2), 8 * (len(contents) - 100)):  # features; audio or index
        path.write_bytes(flipped(contents, bit))
        result = call(copied, "errors", "trained")
        if result.exit_code:
            assert str(path) in result.output
    path.unlink()
    said = refused(copied, "trained")
    assert "9 of 9 clips" in said
    assert "test-00000-" in said
    shutil.rmtree(folder)
    assert f"{folder}: no aligned shards" in refused(copied, "trained")
    shutil.rmtree(copied / "toy")
    assert f"{folder}: no aligned shards" in refused(copied, "trained")


def test_damaged_audio_names_the_clip(copied: Path) -> None:
    path = copied / "toy/aligned/tones+noise-0.1s/test-00000.h5"
    contents = bytearray(path.read_bytes())
    with h5py.File(path) as shard:
        offset = shard["audio"].id.get_offset()
    contents[offset + 10] ^= 1
    path.write_bytes(contents)
    said = refused(copied, "trained")
    assert str(path) in said
    assert "test-00000-" in said


def test_shards_that_changed_are_named(copied: Path) -> None:
    shutil.rmtree(copied / "toy")
    write_toy(copied, {"train": (5,), "valid": (3,), "test": (9,)})
    result = call(copied, "errors", "trained")
    assert result.exit_code == 0
    assert "the shards have changed" in result.output


def test_features_of_files_that_cannot_be_computed(copied: Path) -> None:
    assert "concat" in refused(copied, "concat", "--to-label", copied / "a.wav")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--top", "0"),
        ("--embed-limit", "-1"),
        ("--embed-limit", "nan"),
        ("--split", "all"),
        ("-o", "page.pdf"),
        ("-o", "page"),
    ],
    ids=" ".join,
)
def test_options(copied: Path, arguments: tuple[str, ...]) -> None:
    assert arguments[0].lstrip("-")[0] in refused(copied, "trained", *arguments, status=2)


def test_a_page_that_cannot_be_written(copied: Path) -> None:
    (copied / "page.csv").mkdir()
    said = refused(copied, "trained", "-o", copied / "page.html")
    assert "page.csv" in said
    (copied / "file").write_text("")
    assert "file" in refused(copied, "trained", "-o", copied / "file" / "page.html")
