"""Clips that crash or hang a decoder or a network fail alone."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extractions import clips_of
from fault_runs import FEATURES, extract, make_manifest
from kit import tone, write
from runs import prep

from featreg.datasets.shards.native import native_shard

pytest_plugins = ["fault_fixtures"]


def test_files_that_crash_or_hang_the_decoder_are_set_aside_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    names = ["00", "01-crash", "02", "03-hang", "04", "05"]
    manifest = make_manifest(tmp_path / "source", names)
    work = tmp_path / "work"
    command = extract(manifest)
    begin = time.monotonic()
    run = prep(work, *command, "--clip-timeout", 2, traps=tmp_path)
    assert run.wait() == 1
    assert time.monotonic() - begin < 60
    assert "4 clips extracted, 2 failed, of 6" in run.output
    assert "Traceback" not in run.output
    failures = pd.read_csv(work / "tones" / "failures.csv", index_col="clip_id")
    assert list(failures.index) == ["01-crash.wav", "03-hang.wav"]
    assert list(failures["stage"]) == ["decode", "decode"]
    assert "SIGSEGV" in failures.loc["01-crash.wav", "reason"]
    assert "no answer within 2 s" in failures.loc["03-hang.wav", "reason"]
    run.assert_nothing_is_left()
    # With a decoder that can do it: the failed clips alone, and every clip is as it would have
    # been.
    run = prep(work, *command, "--retry-failed")
    assert run.wait() == 0, run.output
    assert "this run: 2 clips" in run.output
    assert prep(tmp_path / "other", *command).wait() == 0
    assert clips_of(work) == clips_of(tmp_path / "other")
    assert len(pd.read_csv(work / "tones" / "failures.csv")) == 0


def make_unbearable(folder: Path, names: list[str], which: str) -> list[object]:
    """A manifest in which the network of `fatal.py` cannot bear a clip; how to extract it."""
    manifest = make_manifest(folder, names)
    square = np.sign(tone(1.0, 22050)[:, :1]).astype(np.float32)
    write(folder / f"{which}.wav", square, 22050)
    return ["extract", "--dataset", manifest, "--allow-missing", "--workers", 1,
            "--device", "cpu"]  # fmt: skip


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        ("Deadly", "SIGKILL, as happens when memory runs out"),
        ("Hanging", "longer than 3 s (--clip-timeout)"),
        ("Hungry", "Unable to allocate"),
    ],
)
def test_a_clip_that_the_network_cannot_bear_is_found_among_others(
    feature: str, reason: str, tmp_path: Path
) -> None:
    command = make_unbearable(tmp_path / "source", ["00", "01", "02", "03"], "02")
    work = tmp_path / "work"
    run = prep(work, *command, "--features", f"fatal:{feature}", "--clip-timeout", 3)
    assert run.wait() == 1, run.output
    assert "3 clips extracted, 1 failed, of 4" in run.output
    assert "clips one by one" in run.output
    assert "Traceback" not in run.output
    assert "most recent call first" not in run.output
    failures = pd.read_csv(work / "tones" / "failures.csv", dtype=str)
    assert list(failures["clip_id"]) == ["02.wav"]
    assert reason in failures["reason"][0]
    run.assert_nothing_is_left()
    # It stays out until its file changes, and may be one of those that are allowed to fail.
    run = prep(work, *command, "--features", f"fatal:{feature}", "--max-failures", 1)
    assert run.wait() == 0, run.output
    assert "nothing new to do" in run.output


def test_what_one_network_cannot_bear_other_features_have(tmp_path: Path) -> None:
    command = make_unbearable(tmp_path / "source", ["00", "01", "02"], "02")
    work = tmp_path / "work"
    run = prep(work, *command, "--features", f"fatal:Hungry,{FEATURES}")
    assert run.wait() == 1, run.output
    for name, clips in {"audio": 3, "loudness": 3, "hungry": 2}.items():
        with native_shard(work / "tones" / "native" / name / "00000.h5") as shard:
            assert len(shard.clip_ids) == clips
    run = prep(work, *command, "--features", FEATURES)
    assert run.wait() == 0, run.output
    assert "3 clips extracted, 0 failed, of 3; nothing new to do" in run.output
    run = prep(work, "align", "--resolution", 0.1, "--features", "loudness", "--workers", 1)
    assert run.wait() == 0, run.output
    assert "3 clips" in run.output


def test_a_clip_that_hangs_its_decoder_beside_one_that_kills_the_network(tmp_path: Path) -> None:
    command = make_unbearable(tmp_path / "source", ["00", "01-hang", "02", "03-crash"], "02")
    work = tmp_path / "work"
    options = ["--features", "fatal:Deadly", "--clip-timeout", 2]
    run = prep(work, *command, *options, traps=tmp_path)
    assert run.wait() == 1, run.output
    assert "1 clip extracted, 3 failed, of 4" in run.output
    failures = pd.read_csv(work / "tones" / "failures.csv", index_col="clip_id")
    stages = {"01-hang.wav": "decode", "02.wav": "extract", "03-crash.wav": "decode"}
    assert failures["stage"].to_dict() == stages


def test_a_failure_of_every_clip_is_recorded_for_none_and_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(tmp_path / "source", ["00", "01", "02"])
    need = tmp_path / "need"
    monkeypatch.setenv("FEATREG_TEST_NEED", str(need))
    work = tmp_path / "work"
    command = ["extract", "--dataset", manifest, "--features", "fatal:Needy", "--workers", 1,
               "--allow-missing", "--device", "cpu"]  # fmt: skip
    run = prep(work, *command)
    assert run.wait() == 1, run.output
    assert re.search(r"needy: .*FileNotFoundError", run.output)
    need.touch()
    run = prep(work, *command)
    assert run.wait() == 0, run.output
    assert "3 clips extracted, 0 failed, of 3" in run.output
