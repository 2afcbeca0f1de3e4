"""Whatever breaks, nothing is lost: the rerun gives the shards of an undisturbed run."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from fault_runs import CLIPS, FEATURES, extract
from runs import Run, contents, prep

pytest_plugins = ["fault_fixtures"]


def disturb(work: Path, manifest: Path, victim: str, chance: random.Random) -> None:
    """Kill a process of a run at some moment, then let a run come to its end."""
    run = Run(work, *extract(manifest, workers=chance.choice([1, 2])))
    if chance.random() < 0.7:
        run.wait_for_shards(chance.randrange(CLIPS))
        time.sleep(chance.random() * 0.2)
    else:
        time.sleep(chance.random() * 4)
    run.kill(victim)
    status = run.wait()
    assert "Traceback" not in run.output, run.output
    if victim == "main":
        assert status in (0, -signal.SIGKILL)
    else:
        assert status == 0, run.output
    run.assert_nothing_is_left()


@pytest.mark.parametrize("victim", ["main", "worker"])
def test_a_killed_process_loses_nothing(
    victim: str, manifest: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    disturb(tmp_path / "work", manifest, victim, random.Random(victim))
    run = prep(tmp_path / "work", *extract(manifest))
    assert run.wait() == 0, run.output
    assert contents(tmp_path / "work") == undisturbed
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_processes_killed_at_any_moment_lose_nothing(
    seed: int, manifest: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        disturb(tmp_path / "work", manifest, chance.choice(["main", "worker", "decoder"]), chance)
    assert prep(tmp_path / "work", *extract(manifest)).wait() == 0
    assert contents(tmp_path / "work") == undisturbed


@pytest.mark.slow
def test_alignments_killed_at_any_moment_lose_nothing(manifest: Path, tmp_path: Path) -> None:
    assert prep(tmp_path / "work", *extract(manifest)).wait() == 0
    shutil.copytree(tmp_path / "work", tmp_path / "other")
    command = ["align", "--resolution", 0.1, "--workers", 2]
    assert prep(tmp_path / "other", *command).wait() == 0
    chance = random.Random(0)
    for _ in range(8):
        run = Run(tmp_path / "work", *command)
        time.sleep(1 + chance.random() * 3)
        run.kill(chance.choice(["main", "worker"]))
        assert run.wait() in (0, -signal.SIGKILL), run.output
        run.assert_nothing_is_left()
        for path in (tmp_path / "work" / "tones" / "aligned").rglob("00000.h5"):
            path.unlink()  # something is to do again
    assert prep(tmp_path / "work", *command).wait() == 0
    assert contents(tmp_path / "work") == contents(tmp_path / "other")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on_and_leaves_no_process(
    number: signal.Signals,
    status: int,
    manifest: Path,
    undisturbed: dict[str, object],
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "work", *extract(manifest))
    run.wait_for_shards(3)
    # The terminal sends Ctrl-C to everyone, a batch system its signal to the one it started.
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)
    else:
        run.process.send_signal(number)
    assert run.wait() == status, run.output
    run.assert_nothing_is_left()
    assert "same command again" in run.output
    assert "Traceback" not in run.output
    assert not list(tmp_path.rglob("*.tmp"))
    # What is finished is whole, and as it would have been.
    finished = contents(tmp_path / "work")
    assert 0 < len(finished) < len(undisturbed)
    assert finished.items() <= undisturbed.items()


def read_only(work: Path, *arguments: object) -> tuple[int, str]:
    """Status and output of a `prep` command that sees `work` mounted read-only."""
    mounts = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    run = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounts, str(work),
         sys.executable, "-c", "from featreg.extract.cli.prep import prep; prep()"]
        + [str(each) for each in arguments],
        env=os.environ | {"FEATREG_WORK": str(work), "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )  # fmt: skip
    return run.returncode, run.stdout


def may_mount(folder: Path) -> bool:
    """Whether this system lets a process mount folders for itself."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "--bind"]
    with suppress(FileNotFoundError):
        return subprocess.run([*command, folder, folder], capture_output=True).returncode == 0
    return False


def test_a_folder_that_cannot_be_written_is_named_and_keeps_what_it_has(
    manifest: Path, tmp_path: Path
) -> None:
    if not may_mount(tmp_path):
        pytest.skip("no mounts without privileges here")
    work = tmp_path / "work"
    assert prep(work, *extract(manifest)).wait() == 0
    before = contents(work)
    louder = [*extract(manifest), "--set", "loudness.gain=2"]
    for command in (louder, ["align", "--resolution", 0.1]):
        status, output = read_only(work, *command)
        assert status == 1, output
        (error,) = [line for line in output.splitlines() if line.startswith("error:")]
        assert str(work) in error
        assert "Read-only file system" in error
        assert "Traceback" not in output
    assert contents(work) == before
    # Nothing is written by those that only look.
    for command in (["verify", work], ["inspect", work], [*louder, "--dry-run"]):
        status, output = read_only(work, *command)
        assert status == 0, output


def test_a_full_disk_ends_the_run_with_a_line_that_names_the_file(
    manifest: Path,
    undisturbed: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A coverage report of the run would not find room either, and say so.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    run = prep(tmp_path / "work", *extract(manifest), before=little)
    assert run.wait() == 1
    (error,) = [line for line in run.output.splitlines() if line.startswith("error:")]
    assert "/native/" in error
    assert "MB free" in error
    assert "the same command again" in error
    assert "Traceback" not in run.output
    assert not list(tmp_path.rglob("*.tmp"))
    assert prep(tmp_path / "work", *extract(manifest)).wait() == 0
    assert contents(tmp_path / "work") == undisturbed


def test_a_scheduler_elsewhere_does_the_same_and_its_loss_is_survived(
    manifest: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    def start() -> tuple[list[subprocess.Popen[bytes]], str]:
        file = tmp_path / "scheduler.json"
        file.unlink(missing_ok=True)
        path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        dask = [sys.executable, "-m", "dask"]
        options = ["--scheduler-file", str(file)]
        started = [
            subprocess.Popen(
                [*dask, *words, *options], env=env, stderr=subprocess.DEVNULL, cwd=tmp_path
            )
            for words in (
                ["scheduler", "--no-dashboard", "--port", "0"],
                ["worker", "--no-dashboard", "--nthreads", "2"],
            )
        ]
        while not file.exists():
            time.sleep(0.05)
        return started, pd.read_json(file, typ="series")["address"]

    command = ["extract", "--dataset", manifest, "--features", FEATURES, "--shard-clips", 2,
               "--allow-missing"]  # fmt: skip
    processes, address = start()
    try:
        run = Run(tmp_path / "work", *command, "--scheduler", address)
        run.wait_for_shards(3)
        processes[0].kill()
        assert run.wait() == 1, run.output
        assert "connection to the Dask scheduler is lost" in run.output
        assert "Traceback" not in run.output
        for process in processes:
            process.kill()
        processes, address = start()
        run = prep(tmp_path / "work", *command, "--scheduler", address)
        assert run.wait() == 0, run.output
        assert contents(tmp_path / "work") == undisturbed
    finally:
        for process in processes:
            process.kill()
            process.wait()
