"""`prep verify` on a folder: shards that are whole, and others that are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from outside_runs import run, write_manifest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips in five native shards of each feature, and one aligned set of them."""
    folder = tmp_path_factory.mktemp("whole")
    manifest = write_manifest(folder / "source")
    extract = f"prep extract --dataset {manifest} --features loudness:Loudness --shard-clips 2"
    assert run(folder / "work", extract, "--workers", 1).exit_code == 0
    assert run(folder / "work", "prep align --resolution 0.1").exit_code == 0
    return folder / "work"


@pytest.fixture
def work(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "work"))


def verify(work: Path) -> tuple[int, str]:
    from click.testing import CliRunner

    from featreg.extract.cli import prep

    outcome = CliRunner().invoke(prep, ["verify", str(work), "--workers", "1"])
    return outcome.exit_code, outcome.output


def test_a_whole_folder_is_counted(work: Path) -> None:
    status, output = verify(work)
    assert status == 0, output
    assert "12 shards are whole" in output
    assert "tones: loudness: 8 clips with rows, 0 failed, 0 lacking, of 8" in output
    assert "tones: aligned loudness-0.1s: 8 clips of 8" in output


def drop_amid(work: Path) -> None:
    (work / "tones/native/loudness/train-00000.h5").unlink()


def drop_audio(work: Path) -> None:
    (work / "tones/native/audio/test-00000.h5").unlink()


def drop_aligned(work: Path) -> None:
    (work / "tones/aligned/loudness-0.1s/valid-00000.h5").unlink()


def relabel(work: Path) -> None:
    path = work / "tones/clips.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, ["low", "high"]] = ["0", "1"]
    table.to_csv(path, index=False)


def forget(work: Path) -> None:
    path = work / "tones/clips.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.drop(index=1).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop_amid, "no rows of 2 clips, train/0 among them (train-00000.h5 missing)"),
        (drop_audio, "no rows of 2 clips, test/0 among them"),
        (drop_aligned, "lacks 2 clips, valid/0 among them"),
        (relabel, "split or labels are not those of"),
        (forget, "clip train/1"),
    ],
)
def test_what_is_gone_or_other_is_named_with_what_to_do(
    damage: Callable[[Path], None], words: str, work: Path
) -> None:
    damage(work)
    status, output = verify(work)
    assert status == 1, output
    assert words in output
    assert "run `prep " in output
    assert "Traceback" not in output


def test_clips_beyond_a_limit_or_on_record_are_no_fault(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "source")
    (tmp_path / "source" / "train1.wav").write_bytes(b"")
    extract = f"prep extract --dataset {manifest} --features loudness:Loudness --limit 3"
    outcome = run(tmp_path / "work", extract, "--workers", 1, "--max-failures", 1)
    assert outcome.exit_code == 0, outcome.output
    status, output = verify(tmp_path / "work")
    assert status == 0, output
    assert "loudness: 6 clips with rows, 1 failed, 1 lacking, of 8" in output
