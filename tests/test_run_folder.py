"""Which run a folder holds, whether it is done, resumed, refused or replaced."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import CONREG, made_up_run
from synthetic import header

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.locks import LOCK
from featreg.train.config.presets import Config
from featreg.train.training.checkpoint import FORMAT, Progress
from featreg.train.training.run_dir import RunDir, choose_run, find_run, find_runs, run_dir
from featreg.train.training.run_files import OUTPUTS, read_json, read_verified, write_json

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


def test_values_come_back_as_json_with_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": (1, 2), "a": {1: None}, "sha256": "old"})
    stored = json.loads(path.read_text())
    plain = {"format": "featreg-run", "version": 2, "b": [1, 2], "a": {"1": None}}
    text = json.dumps(plain, sort_keys=True).encode()
    assert stored == plain | {"sha256": hashlib.sha256(text).hexdigest()}
    assert read_json(path) == plain
    path.write_text(json.dumps(dict(reversed(stored.items())), indent=7))
    assert read_json(path) == plain  # in any order and with any white space


def edited(path: Path, **changes: Any) -> None:
    """Change values of a file, and its checksum with them."""
    values = json.loads(path.read_text()) | changes
    values.pop("sha256")
    if path.name == "report.json":
        values.pop("files")
    write_json(path, values)


def test_damaged_json_is_refused(folder: RunDir) -> None:
    path = folder.path / "config.json"
    content = path.read_text()
    for text, said in (
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "found list"),
        (content.replace("demo-small", "x").replace("cpu", "gpu"), "checksum"),
        (content.replace('"sha256"', '"sha512"'), "checksum"),
    ):
        path.write_text(text)
        refused(lambda: folder.read_json("config.json"), re.escape(str(path)), said, "--fresh")
    path.unlink()
    refused(lambda: read_json(path), "cannot be read")


@pytest.mark.parametrize("change", [{"version": 1}, {"format": "other"}])
@pytest.mark.parametrize("sealed", [False, True])
def test_other_versions_are_named(folder: RunDir, change: dict[str, Any], sealed: bool) -> None:
    path = folder.path / "config.json"
    values = json.loads(path.read_text()) | change
    del values["sha256"]
    if sealed:
        text = json.dumps(values, sort_keys=True).encode()
        values["sha256"] = hashlib.sha256(text).hexdigest()
    path.write_text(json.dumps(values))
    (found,) = change.values()
    refused(lambda: read_json(path), "another version.*--fresh", str(found))
    path.write_text(json.dumps(values | {"sha256": "0"}))
    refused(lambda: read_json(path), "checksum")  # it may be anything


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("config.json", {"config": {"recipe": []}}, r"config\.recipe"),
        ("config.json", {"config": None}, r"config\.recipe"),
        ("config.json", {"fingerprint": 1}, "fingerprint"),
        ("config.json", {"data": {}}, r"data\.fingerprint"),
        ("config.json", {"machine": {"device": 0}}, r"machine\.device"),
        ("report.json", {"best_epoch": "1"}, "best_epoch"),
        ("report.json", {"seconds": None}, "seconds"),
        ("report.json", {"classes": {}}, "classes"),
    ],
)
def test_values_of_another_type_are_named(
    folder: RunDir, name: str, changes: dict[str, Any], key: str
) -> None:
    edited(folder.path / name, **changes)
    refused(lambda: folder.read_json(name), rf"{name}.*{key} ")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_are_from_0_to_1(folder: RunDir, split: str) -> None:
    for value in (-0.001, 1.001, float("nan"), "0.5", None):
        edited(folder.path / "report.json", **{split: {"roc_auc": 0.5, "pr_auc": value}})
        refused(lambda: folder.read_json("report.json"), "0 to 1")
    for value in (0, 1, 0.5):
        edited(folder.path / "report.json", **{split: {"pr_auc": value}})
        assert folder.read_json("report.json")[split] == {"pr_auc": value}
    edited(folder.path / "report.json", seconds=3)
    assert folder.read_json("report.json")["seconds"] == 3


def test_the_report_holds_the_checksum_of_every_output(folder: RunDir) -> None:
    for name in OUTPUTS:
        (folder.path / name).write_text(name)
    (folder.path / "log.txt").touch()
    edited(folder.path / "report.json")
    files = folder.read_json("report.json")["files"]
    assert files == {name: hashlib.sha256(name.encode()).hexdigest() for name in OUTPUTS}
    assert read_verified(folder.path / OUTPUTS[0], files[OUTPUTS[0]]) == OUTPUTS[0].encode()
    refused(lambda: read_verified(folder.path / OUTPUTS[0], None), OUTPUTS[0])


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


def test_a_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert Progress.load(path) == Progress()
    new = Progress()
    assert (new.epoch, new.step, new.seconds, new.best_epoch, new.best_value) == (0, 0, 0, 0, 0)
    assert not Progress().begun
    assert Progress(epoch=1).begun
    assert Progress(step=1).begun
    state = Progress(
        2, 3, [0.5], 1.5, {"w": torch.ones(2)}, {"lr": 0.1}, 1, 0.75, {}, [{"epoch": 1.0}]
    )
    state.save(path)
    found = Progress.load(path)
    assert torch.equal(found.objective.pop("w"), torch.ones(2))
    state.objective.clear()
    assert found == state
    first, payload = path.read_bytes().split(b"\n", 1)
    assert first == f"{FORMAT} {hashlib.sha256(payload).hexdigest()}".encode()


def test_code_in_a_state_is_not_run(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "state.pt"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(trap),)

    Progress(optimizer={"evil": Payload()}).save(path)
    refused(lambda: Progress.load(path), r"state\.pt.*--fresh")
    assert not trap.exists()


def test_a_state_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Progress(epoch=1).save(path)
    content = path.read_bytes()

    def with_checksum(payload: bytes) -> bytes:
        return f"{FORMAT} {hashlib.sha256(payload).hexdigest()}\n".encode() + payload

    for damaged, said in (
        (b"", "does not begin"),
        (content.replace(FORMAT.encode(), b"featreg-state 2", 1), "does not begin"),
        (content[:-1], "checksum"),
        (content.replace(b" ", b"  ", 1), "does not begin"),
        (content.replace(b"\n", b"0\n", 1), "checksum"),
        (with_checksum(b"no state"), r"cannot be resumed \("),
    ):
        path.write_bytes(damaged)
        refused(lambda: Progress.load(path), r"state\.pt", said, "--fresh")
