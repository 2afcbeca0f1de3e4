"""What the doctor finds, on this machine and on machines with something wrong."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from featreg.extract.cli.prep import prep
from featreg.extract.inspection import doctor
from featreg.extract.inspection.doctor import Finding

ONNX = ("onnx", "onnxruntime", "onnxscript")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("FEATREG_DATA", "FEATREG_WEIGHTS", "FEATREG_WEIGHTS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def examine(work: Path) -> Result:
    return CliRunner().invoke(prep, ["doctor", "--work", str(work)])


def faults(findings: Any) -> list[Finding]:
    return [finding for finding in findings if finding.level != "ok"]


def test_a_machine_that_runs_these_tests_is_well(tmp_path: Path) -> None:
    done = examine(tmp_path / "work")
    assert done.exit_code == 0, done.output
    titles = [line for line in done.output.splitlines() if not line.startswith(" ")]
    assert titles == [
        *("packages", "processor", "GPU", "audio", "folders"),
        titles[-1],
    ]
    assert f"torch {metadata.version('torch')}" in done.output
    assert "reads MP3 files" in done.output
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_missing_or_too_old_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metadata.version

    def version(name: str) -> str:
        if name == "resampy":
            raise metadata.PackageNotFoundError(name)
        return {"torch": "2.5.1+cpu", "numba": "0.100"}.get(name) or whole(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.text.split()[0]: finding for finding in doctor.check_packages()}
    assert found["torch"] == Finding(
        "broken", "torch 2.5.1+cpu is too old (requires 2.7)", "pip install 'torch>=2.7'"
    )
    assert found["resampy"].level == "note"
    assert found["resampy"].remedy == "pip install '.[resampy]' in featreg's repository"
    assert "numba" not in found  # 0.100 is newer than 0.59


@pytest.mark.parametrize(
    ("package", "use", "remedy"),
    [
        *(
            (name, "train export --format onnx", "'.[onnx]' in featreg's repository")
            for name in ONNX
        ),
        ("tensorboard", "train run --tensorboard", "'.[tensorboard]' in featreg's repository"),
    ],
)
def test_a_package_that_few_need_is_listed_with_its_use(
    package: str, use: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = metadata.version

    def version(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return whole(name)

    monkeypatch.setattr(metadata, "version", version)
    (found,) = [each for each in doctor.check_packages() if each.text.split()[0] == package]
    assert found.level == "note"
    assert f", for {use}" in found.text
    assert found.remedy == f"pip install {remedy}"


@pytest.mark.parametrize(("python", "fits"), [("3.9.9", False), ("3.10.0", True), ("3.13", False)])
def test_only_the_declared_pythons_will_do(
    monkeypatch: pytest.MonkeyPatch, python: str, fits: bool
) -> None:
    monkeypatch.setattr("platform.python_version", lambda: python)
    first = next(doctor.check_packages())
    assert first.level == ("ok" if fits else "broken")
    assert python in first.text
    assert metadata.metadata("featreg")["Requires-Python"] in first.text


def test_a_codec_that_is_missing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_formats", lambda: ["WAV", "FLAC", "OGG"])
    (fault,) = faults(doctor.check_audio())
    assert fault.level == "broken"
    assert "MP3" in fault.text
    assert fault.remedy.startswith("pip install --force-reinstall soundfile")


def test_a_folder_that_cannot_be_written_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    done = examine(tmp_path / "file" / "work")
    assert done.exit_code == 1
    assert re.search(r"!! working folder .*/file is not writable.*\n .*--work DIR", done.output)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    (fault,) = faults(doctor.check_folders(tmp_path))
    assert fault.level == "broken"
    assert "Permission denied" in fault.text


def test_a_variable_that_names_no_folder_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATREG_DATA", str(tmp_path / "nowhere"))
    (fault,) = faults(doctor.check_folders(tmp_path))
    assert fault.level == "broken"
    assert fault.remedy == "unset FEATREG_DATA"


def test_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LITTLE_ROOM", float("inf"))
    (fault,) = faults(doctor.check_folders(tmp_path))
    assert fault.level == "note"
    assert fault.text.endswith("GB free")


def test_a_driver_without_a_torch_for_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (fault,) = faults(doctor.check_gpu())
    assert fault.level == "note"
    assert f"torch {torch.__version__}" in fault.text
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert faults(doctor.check_gpu()) == []


def test_threads_that_lie_idle_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    (fault,) = faults(doctor.check_processor())
    assert fault.text.startswith("torch uses 1 threads (OMP_NUM_THREADS=1)")


def test_what_breaks_one_part_does_not_keep_the_others_from_being_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise OSError("no such library")

    monkeypatch.setattr(doctor, "check_processor", stop)
    parts = dict(doctor.examine(tmp_path))
    assert parts["processor"] == [Finding("broken", "OSError: no such library")]
    assert len(parts) == 5
