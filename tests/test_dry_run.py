"""``--dry-run``: what would be done and why, and at most how many bytes it takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from custom_feature_runs import run, write_manifest
from extractions import REQUEST, extract
from file_server import FileServer
from weight_files import OPENL3

from featreg.datasets.base import Dataset
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.pipeline.dry_run import alignment_bytes, extraction_bytes
from featreg.extract.pipeline.plan import make_plan
from featreg.extract.weights.cache import cache, whereabouts
from featreg.extract.weights.registry import WEIGHTS

pytest_plugins = ("weight_fixtures", "extraction_fixtures")


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
    missing = f"openl3: the weights {OPENL3} are not on this machine"
    assert missing in planned.output
    for name in ("audio", "openl3"):
        assert f"{name}: 8 clips to compute: not extracted yet" in planned.output
        assert f"{name}: 1 shard to write" in planned.output
    assert server.ranges == []
    assert whereabouts(WEIGHTS[OPENL3]) is None

    assert run(tmp_path / "work", command).exit_code == 0
    with_weights = run(tmp_path / "work", command, "--dry-run").output
    assert "not on this machine" not in with_weights
    fetched = len(server.ranges)
    for path in cache().iterdir():
        path.unlink()
    without = run(tmp_path / "work", command, "--dry-run").output
    assert missing in without
    assert "openl3: nothing to do" in without
    other = run(tmp_path / "work", command, "--set", "openl3.hop=0.5", "--dry-run").output
    assert "openl3: 8 clips to compute: hop was" in other
    assert len(server.ranges) == fetched


@pytest.mark.usefixtures("own_cache")
def test_weights_without_an_address_are_named_with_what_brings_them(
    manifest: Path, tmp_path: Path
) -> None:
    command = f"prep extract --dataset {manifest} --features musicnn --set musicnn.model=MTT"
    planned = run(tmp_path / "work", command, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "run `pip download --no-deps musicnn" in planned.output


def test_an_alignment_s_shards_and_room_are_told_and_nothing_is_written(
    manifest: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    command = f"prep extract --dataset {manifest} --features loudness:Loudness"
    assert run(work, command).exit_code == 0
    before = sorted(work.rglob("*"))
    planned = run(work, "prep align --resolution 0.1", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "loudness-0.1s: 1 shard to write (8 clips)" in planned.output
    assert " free: enough" in planned.output
    assert sorted(work.rglob("*")) == before
    assert run(work, "prep align --resolution 0.1").exit_code == 0
    again = run(work, "prep align --resolution 0.1", "--dry-run").output
    assert "0 shards to write (0 clips), 1 up to date" in again


def test_a_dry_run_needs_no_folder_for_itself(manifest: Path, tmp_path: Path) -> None:
    command = f"prep extract --dataset {manifest} --features loudness:Loudness"
    with DatasetDir(tmp_path / "work" / "tones").exclusive():
        planned = run(tmp_path / "work", command, "--dry-run")
        assert planned.exit_code == 0, planned.output
        assert run(tmp_path / "work", command).exit_code == 1


@pytest.mark.parametrize("known", [False, True])
def test_the_bytes_told_are_an_upper_bound(known: bool, dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    if known:  # lengths of an earlier run
        extract(dataset, tmp_path)
        shutil.rmtree(folder.path / "native")
    told = extraction_bytes(folder, make_plan(dataset, folder, REQUEST))
    written = extract(dataset, tmp_path).written
    assert written < told < written + 8 * 90_000
    assert extraction_bytes(folder, make_plan(dataset, folder, REQUEST)) == 0
    plan = plan_alignment(folder, (), 0.1, "repeat")
    told = alignment_bytes(plan)
    written = sum(align_shard(job) for job in plan.jobs)
    assert written < told < 1.3 * written + 4 * 160_000
    assert alignment_bytes(plan_alignment(folder, (), 0.1, "repeat")) == 0


def test_a_disk_that_may_become_full_is_warned_of(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featreg.extract.pipeline.dry_run.free_bytes", lambda path: 1000)
    command = f"prep extract --dataset {manifest} --features loudness:Loudness --workers 1"
    planned = run(tmp_path / "work", command, "--dry-run")
    assert "1.0 kB free: may not be enough" in planned.output
    done = run(tmp_path / "work", command)
    assert done.exit_code == 0, done.output
    assert "may not be enough" in done.output


def test_an_absurd_length_names_its_clip_and_stops_nothing(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "source")
    lines = manifest.read_text().splitlines()
    lines[0] += ",duration_s"
    lines[1:] = [line + ("," if k else ",1e15") for k, line in enumerate(lines[1:])]
    manifest.write_text("\n".join(lines))
    command = f"prep extract --dataset {manifest} --features loudness:Loudness --workers 1"
    done = run(tmp_path / "work", command)
    assert done.exit_code == 0, done.output
    (warning,) = [line for line in done.output.splitlines() if "1e+15" in line]
    assert "train/0" in warning
    assert "duration_s" in warning
    assert "may not be enough" not in done.output
