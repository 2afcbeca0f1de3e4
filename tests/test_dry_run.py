"""``prep extract --dry-run``: it says what a run would do, and does nothing itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_server import FileServer
from outside_runs import run, write_manifest
from weight_files import OPENL3

from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.weights.cache import cache, whereabouts
from featreg.extract.weights.registry import WEIGHTS

pytest_plugins = ("weight_fixtures",)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "source")


@pytest.mark.usefixtures("own_cache")
def test_weights_that_are_not_here_are_named_and_not_fetched(
    manifest: Path, tmp_path: Path, server: FileServer
) -> None:
    command = f"prep extract --dataset {manifest} --workers 1 --features openl3"
    planned = run(tmp_path / "work", command, "--dry-run")
    assert planned.exit_code == 0, planned.output
    missing = f"openl3: the weights {OPENL3} are not here; the run fetches them (about 17 MB)"
    assert missing in planned.output
    for name in ("audio", "openl3"):
        assert f"{name}: 3 shards to do (train-00000.h5 and so on), 8 clips: not" in planned.output
    assert server.ranges == []
    assert whereabouts(WEIGHTS[OPENL3]) is None

    assert run(tmp_path / "work", command).exit_code == 0
    with_weights = run(tmp_path / "work", command, "--dry-run").output
    assert "not here" not in with_weights
    fetched = len(server.ranges)
    for path in cache().iterdir():
        path.unlink()
    without = run(tmp_path / "work", command, "--dry-run").output
    assert missing in without
    assert "0 shards to do, 6 done" in without
    other = run(tmp_path / "work", command, "--set", "openl3.hop=0.5", "--dry-run").output
    assert "openl3: 3 shards to do" in other
    assert len(server.ranges) == fetched


@pytest.mark.usefixtures("own_cache")
def test_weights_without_an_address_are_named_with_what_brings_them(
    manifest: Path, tmp_path: Path
) -> None:
    command = f"prep extract --dataset {manifest} --features musicnn --set musicnn.model=MTT"
    planned = run(tmp_path / "work", command, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "musicnn-mtt are not here; get them by `pip download --no-deps musicnn" in planned.output


def test_an_alignment_s_shards_and_room_are_told_and_nothing_is_written(
    manifest: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    command = f"prep extract --dataset {manifest} --features loudness:Loudness"
    assert run(work, command).exit_code == 0
    before = sorted(work.rglob("*"))
    planned = run(work, "prep align --resolution 0.1", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "loudness-0.1s: 3 shards to write (8 clips), 0 done" in planned.output
    assert " free: suffices" in planned.output
    assert sorted(work.rglob("*")) == before
    assert run(work, "prep align --resolution 0.1").exit_code == 0
    again = run(work, "prep align --resolution 0.1", "--dry-run").output
    assert "0 shards to write (0 clips), 3 done" in again


def test_a_dry_run_needs_no_folder_for_itself(manifest: Path, tmp_path: Path) -> None:
    command = f"prep extract --dataset {manifest} --features loudness:Loudness"
    with DatasetDir(tmp_path / "work" / "tones").exclusive():
        planned = run(tmp_path / "work", command, "--dry-run")
        assert planned.exit_code == 0, planned.output
        assert run(tmp_path / "work", command).exit_code == 1
