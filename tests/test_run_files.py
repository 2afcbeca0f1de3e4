"""Files of a run: read as they were written, or refused by name with the next step."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import made_up_run
from test_run_folder import refused

from featreg.train.training.checkpoint import FORMAT, Progress
from featreg.train.training.run_dir import RunDir
from featreg.train.training.run_files import OUTPUTS, read_json, read_verified, write_json


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    return made_up_run(tmp_path, 0, 0.5)


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
