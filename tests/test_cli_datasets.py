from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kit import tone, write
from miniatures import make

from featreg.datasets.collections import registry
from featreg.datasets.console import Commands
from featreg.extract.cli.datasets import datasets, download
from featreg.extract.cli.prep import prep as whole

prep = Commands("prep", commands={"datasets": datasets, "download": download})


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATREG_DATA", raising=False)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(prep, [str(argument) for argument in arguments])


def manifest(folder: Path) -> Path:
    """Three clips of the user's own that can be decoded."""
    rows = [f"{split}.wav,{split},x" for split in ("train", "valid", "test")]
    for split in ("train", "valid", "test"):
        write(folder / f"{split}.wav", tone(0.2, 16000), 16000)
    path = folder / "mine.csv"
    path.write_text("\n".join(["path,split,labels", *rows]))
    return path


def test_the_list_names_everything(tmp_path: Path) -> None:
    make("mtat", tmp_path / "mtat" / "source")
    result = run("datasets", "--work", tmp_path)
    assert result.exit_code == 0
    for name in registry.names():
        info = registry.info(name)
        for text in (f"{name}: {info.title}", info.licence, info.citation, info.needs, info.task):
            assert text in result.stdout
        assert f"{info.clips[0]:,} train, {info.clips[1]:,} valid" in result.stdout
    assert "incomplete: mtat: 2 / 1 / 1 clips" in result.stdout
    assert f"{tmp_path / 'dcase2017' / 'source'} not found" in result.stdout


def test_one_dataset_is_read_and_counted(tmp_path: Path) -> None:
    result = run("datasets", manifest(tmp_path), "--task", "single-label")
    assert result.exit_code == 0
    assert result.stdout == "mine: 1 train, 1 valid, 1 test clips, 1 classes, single-label\n"


def test_every_missing_file_is_named_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{split}{n}.wav,{split},x" for split in ("train", "valid", "test") for n in range(3)]
    (tmp_path / "mine.csv").write_text("\n".join(["path,split,labels", *rows]))
    with caplog.at_level("INFO", "featreg"):  # which --verbose changes for this process
        result = CliRunner().invoke(whole, ["--verbose", "datasets", str(tmp_path / "mine.csv")])
    assert result.exit_code == 1
    named = [line for line in result.output.splitlines() if line.startswith("mine: not found: ")]
    assert [Path(line.split()[3]).name for line in named] == [row.split(",")[0] for row in rows]


def test_files_are_found_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("mtat", tmp_path / "data" / "mtat")
    monkeypatch.setenv("FEATREG_DATA", str(tmp_path / "data"))
    result = run("datasets", "mtat", "--check", "--allow-missing", "--work", tmp_path)
    assert result.exit_code == 0
    assert "mtat: 2 train, 1 valid, 1 test clips, 50 classes" in result.stdout


def test_a_check_of_good_files_succeeds(tmp_path: Path) -> None:
    result = run("datasets", "speech_commands", "--check", "--allow-missing",
                 "--root", make("speech_commands", tmp_path / "words"))  # fmt: skip
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"%PDF-1.4 renamed", "cannot be decoded"),
        (b"RIFF\x24\x00\x00\x00WAVE", "cannot be decoded"),
    ],
)
def test_a_check_names_each_bad_file(tmp_path: Path, content: bytes, reason: str) -> None:
    path = manifest(tmp_path)
    (tmp_path / "valid.wav").write_bytes(content)
    result = run("datasets", path, "--check")
    assert result.exit_code == 1
    bad = [line for line in result.stdout.splitlines() if ".wav" in line]
    assert len(bad) == 1
    assert bad[0].startswith(f"valid.wav: {tmp_path / 'valid.wav'} {reason}")


def test_a_check_finds_excerpts_beyond_the_end_and_files_that_are_locked(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    text = path.read_text().replace("path,", "start_s,path,")
    for split, start in (("train", 0), ("valid", 0.1), ("test", 7)):
        text = text.replace(f"\n{split}", f"\n{start},{split}")
    path.write_text(text)
    result = run("datasets", path, "--check")
    assert result.exit_code == 1
    assert "test.wav lasts 0.200 s, nothing is left at start_s 7" in result.stdout
    if os.geteuid():
        (tmp_path / "train.wav").chmod(0)
        assert "Permission denied" in run("datasets", path, "--check").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("datasets", "gtzan"), 2, "no dataset called 'gtzan'"),
        (("datasets", "--check"), 2, "--check and --root"),
        (("datasets", "demo", "--group", "x"), 2, "--group is not an option of demo"),
        (("datasets", "mtat", "--root", "nowhere"), 1, "found no such folder"),
        (("download", "gtzan"), 2, "no dataset called 'gtzan'"),
    ],
)
def test_one_line_for_what_cannot_be(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    errors = result.stderr + capfd.readouterr().err
    assert re.search(rf"^error: .*{re.escape(message)}.*\n$", errors)
