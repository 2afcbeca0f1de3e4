"""``prep embed``: the values of `load_extractor`, one file per audio file, and a table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kit import tone, write

import featreg
from featreg.extract.cli.prep import prep

FILES = ("a.wav", "sub/b.flac", "sub/c.wav")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(FILES):
        write(tmp_path / "in" / name, tone(4.0 + k, 22050, 1 + k % 2, seed=k), 22050)
    (tmp_path / "in" / "notes.txt").touch()
    return tmp_path / "in"


def run(*arguments: object) -> Result:
    line = ["embed", *map(str, arguments), "--features", "musicnn", "--device", "cpu"]
    return CliRunner().invoke(prep, line)


def test_files_have_the_values_of_the_extractor(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    extractor = featreg.load_extractor("musicnn")
    for name in FILES:
        arrays = np.load(tmp_path / "out" / "musicnn" / f"{name}.npz")
        values, times = extractor(folder / name)
        np.testing.assert_array_equal(arrays["values"], values)
        np.testing.assert_array_equal(arrays["times"], times)
        assert arrays["duration_s"] == pytest.approx(4 + FILES.index(name))


def test_a_bad_file_is_named_and_the_rest_goes_on(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.wav").write_bytes(b"RIFF and no more")
    missing = tmp_path / "missing.wav"
    done = run(folder, missing, "-o", tmp_path / "out", "--pool", "mean", "--table", "csv")
    assert done.exit_code == 1
    assert "bad.wav" in done.output
    assert str(missing) in done.output
    assert "2 of 5 files failed" in done.output
    table = pd.read_csv(tmp_path / "out" / "musicnn.csv", index_col="clip_id")
    assert sorted(table.index) == sorted(FILES)
    for name in FILES:
        values, _ = featreg.load_extractor("musicnn")(folder / name)
        # 1e-5 relative: means of float32, in another order.
        np.testing.assert_allclose(table.loc[name], values.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_files_that_are_up_to_date_are_skipped(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "3 files embedded, 0 up to date" in run(folder, "-o", out).output
    first = out / "musicnn" / "a.wav.npz"
    written = first.stat().st_mtime_ns
    later = written / 1e9 + 5
    os.utime(folder / "sub" / "c.wav", (later, later))
    assert "1 file embedded, 2 up to date" in run(folder, "-o", out).output
    assert first.stat().st_mtime_ns == written


def test_other_settings_need_another_folder(folder: Path, tmp_path: Path) -> None:
    assert run(folder / "a.wav", "-o", tmp_path / "out").exit_code == 0
    for more, name in ((["--pool", "mean"], "pool"), (["--set", "musicnn.model=MTT"], "musicnn")):
        done = run(folder / "a.wav", "-o", tmp_path / "out", *more)
        assert done.exit_code in (1, 2)
        assert name in done.output


def test_two_files_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(1.0, 22050), 22050)
    done = run(folder / "a.wav", tmp_path / "a.wav", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert str(folder / "a.wav") in done.output


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--set", "openl3.hop=1"], "--set openl3"), (["--set", "musicnn.x=1"], "musicnn")],
)
def test_wrong_settings_are_named(
    folder: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    done = run(folder, "-o", tmp_path / "out", *more)
    assert done.exit_code == 2
    assert message in done.output


def test_a_folder_without_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = run(tmp_path / "in", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "no audio files" in done.output
