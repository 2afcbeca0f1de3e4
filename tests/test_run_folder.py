"""Which run a folder holds, whether it is done, resumed, refused or replaced."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import CONREG, made_up_run
from synthetic import header

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.locks import LOCK
from featreg.train.config.config import Config
from featreg.train.training.find_runs import choose_run, find_run, find_runs
from featreg.train.training.run_dir import RunDir, run_dir

DATA = "0123456789abcdef0123"


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """A finished run that says which configuration and data it has."""
    return recorded(made_up_run(tmp_path, 0, 0.5))


def recorded(folder: RunDir, **data: Any) -> RunDir:
    about = folder.read_json("config.json")
    about["data"] |= data
    fingerprint = folder.config().fingerprint(about["data"]["fingerprint"])
    folder.write_json("config.json", about | {"fingerprint": fingerprint})
    return folder


def refused(read: Callable[[], object], *words: str) -> FeatregError:
    with pytest.raises(FeatregError) as caught:
        read()
    for word in words:
        assert re.search(word, str(caught.value)), (word, caught.value)
    return caught.value


def test_a_finished_run_is_not_run_again(folder: RunDir) -> None:
    assert folder.finished
    assert folder.name == "demo-baseline-s0"
    config = folder.config()
    assert folder.todo(config, DATA) is False
    with folder.claim(config, DATA) as todo:
        assert todo is False
    (folder.path / "report.json").unlink()
    assert not folder.finished
    assert folder.todo(config, DATA) is True
    assert RunDir(folder.path.parent / "new").todo(config, DATA) is True


def test_a_finished_run_is_verified_before_it_is_taken_for_done(folder: RunDir) -> None:
    (folder.path / "metrics.csv").write_text("epoch\n")
    refused(lambda: folder.todo(folder.config(), DATA), r"metrics\.csv.*--fresh")
    (folder.path / "report.json").unlink()
    assert folder.todo(folder.config(), DATA) is True


def test_another_configuration_is_refused_and_every_difference_named(folder: RunDir) -> None:
    config = folder.config()
    recipe = dataclasses.replace(config.recipe, lr=0.5)
    other = dataclasses.replace(config, seed=3, recipe=recipe)
    error = refused(
        lambda: folder.todo(other, DATA), r"seed \(0, not 3\), lr \(0\.002, not 0\.5\);"
    )
    assert isinstance(error, UsageError)
    assert "dataset" not in str(error)
    assert "--run-name" in str(error)
    error = refused(
        lambda: folder.todo(other, DATA, otherwise="go away"), "; go away, or", "--fresh"
    )
    assert "data (" not in str(error)
    (folder.path / "report.json").unlink()
    refused(lambda: folder.todo(other, DATA), "seed")


def test_other_data_are_refused_and_what_changed_is_named(folder: RunDir) -> None:
    config, about = folder.config(), header(dataset="demo")
    known = {"classes": list(about.classes), "task": about.task, "resolution_s": 0.1,
             "mode": "repeat", "audio_rate": 16000}  # fmt: skip
    recorded(folder, **known)
    assert folder.todo(config, DATA, about) is False
    for given in (None, about):
        error = refused(lambda given=given: folder.todo(config, "other", given), "data")
        assert "resolution_s" not in str(error)
    other = dataclasses.replace(about, mode="area", audio_rate=8000)
    error = refused(
        lambda: folder.todo(config, "other", other),
        r"mode \(repeat, not area\), audio_rate \(16000, not 8000\);",
    )
    assert "data (" not in str(error)


def test_a_folder_is_held_by_one_process(folder: RunDir) -> None:
    left = folder.path / ".config.json.1.tmp"
    left.touch()
    with folder.held():
        assert (folder.path / LOCK).exists()
        error = refused(lambda: folder.clear(), "another process")
        assert not isinstance(error, UsageError)
        with pytest.raises(FeatregError), folder.claim(folder.config(), DATA):
            pass
    assert not left.exists()
    assert folder.finished


def test_clearing_removes_a_run_and_nothing_else(folder: RunDir) -> None:
    (folder.path / "tensorboard").mkdir()
    (folder.path / "link").symlink_to(folder.path.parent)
    (folder.path / ".hidden").touch()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == [LOCK]
    RunDir(folder.path / "nowhere").clear()
    (folder.path / "log.txt").touch()
    folder.clear()  # only a log is left of a run that did not begin
    assert [path.name for path in folder.path.iterdir()] == [LOCK]
    (folder.path / "thesis.tex").touch()
    error = refused(folder.clear, "thesis.tex")
    assert isinstance(error, UsageError)
    assert (folder.path / "thesis.tex").exists()


def test_clearing_begins_with_what_makes_it_done(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / "state.pt").touch()
    removed: list[str] = []
    unlink = Path.unlink

    def note(self: Path, missing_ok: bool = False) -> None:
        removed.append(self.name)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", note)
    folder.clear()
    assert removed[:2] == ["report.json", "state.pt"]
    assert removed[-1] == "config.json"
    assert len(removed) == 6


def test_outputs_are_read_against_their_checksums(folder: RunDir) -> None:
    folder.verify()
    content = folder.read_output("metrics.csv")
    assert content == (folder.path / "metrics.csv").read_bytes()
    (folder.path / "metrics.csv").write_bytes(content + b"\n")
    refused(lambda: folder.read_output("metrics.csv"), r"metrics\.csv")
    refused(folder.verify, r"metrics\.csv")
    (folder.path / "metrics.csv").unlink()
    refused(folder.verify, r"metrics\.csv.*--fresh")
    (folder.path / "model.safetensors").touch()
    refused(lambda: folder.read_output("model.safetensors"), "model")  # the report knows none
    assert "--fresh" not in str(refused(lambda: folder.read_json("other.json"), "other"))


def test_a_configuration_of_other_settings_is_refused(folder: RunDir) -> None:
    about = folder.read_json("config.json")
    del about["config"]["seed"]
    folder.write_json("config.json", about)
    refused(folder.config, r"config\.json.*seed")
    refused(folder.verify, r"config\.json")


def test_a_run_is_made_in_the_folder_of_its_name(tmp_path: Path) -> None:
    config = made_up_run(tmp_path / "elsewhere", 0, 0.5).config()
    runs = tmp_path / "work" / "runs"

    def made(config: Config, name: str | None = None) -> str:
        found = run_dir(tmp_path / "work", config, name)
        assert found.path.parent == runs
        return found.name

    assert made(config) == "demo-baseline-s0"
    assert made(config, "mine") == "mine"
    for name in ("", "..", "a/b", "/tmp"):
        assert isinstance(refused(lambda name=name: made(config, name), "--run-name"), UsageError)
    made_up_run(tmp_path / "work", 0, 0.5)
    other = dataclasses.replace(config, aligned="other-0.1s")
    assert made(config) == "demo-baseline-s0"
    assert made(other) == "demo-baseline-s0-other-0.1s"
    for name in ("demo-baseline-s0-musicnn-0.1s", "demo-baseline-s0-other-0.1s"):
        (runs / name).mkdir()
    assert made(config) == "demo-baseline-s0"
    (runs / "demo-baseline-s0-musicnn-0.1s" / "config.json").touch()
    assert made(config) == "demo-baseline-s0-musicnn-0.1s"
    (runs / "demo-baseline-s0" / "config.json").write_text("{")
    assert made(other) == "demo-baseline-s0"  # it says what is wrong


def test_the_run_that_is_meant(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    work = folder.path.parents[1]
    assert choose_run(work, None) == choose_run(work, folder.name) == folder
    assert choose_run(work, str(folder.path)) == folder
    (work / "runs" / "a-link").symlink_to(folder.path)
    assert find_run(work, "a-link").name == "a-link"
    (work / "runs" / "a-link").unlink()
    second = made_up_run(work, 1, 0.5, **CONREG)
    assert find_runs(work) == [folder, second]
    for name in (None, "gone"):
        error = refused(lambda name=name: choose_run(work, name), folder.name, second.name)
        assert isinstance(error, UsageError)
    (folder.path / "report.json").unlink()
    assert choose_run(work, None) == second
    assert not isinstance(refused(lambda: choose_run(work, folder.name), "not fin"), UsageError)
    assert find_run(work, folder.name) == folder
    (second.path / "report.json").unlink()
    refused(lambda: choose_run(work, None), "train run")
    refused(lambda: find_run(work.parent / "empty", "x"), "none")
    monkeypatch.chdir(folder.path)
    assert find_run(work.parent / "empty", ".") == folder
    for run in (folder, second):
        (run.path / "report.json").touch()
    with pytest.raises(UsageError, match="--model"):
        choose_run(work, None, "--model")
