"""Whatever breaks, nothing is lost: the rerun gives the shards of an undisturbed run."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extractions import clips_of
from kit import tone, write
from runs import Run, contents, prep

from featreg.datasets.shards.native import native_shard

CLIPS = 24
FEATURES = "loudness:Loudness"


def make_manifest(folder: Path, names: list[str]) -> Path:
    """Clips of these names, tones all; and the manifest that lists them."""
    lines = ["path,labels,split"]
    for k, name in enumerate(names):
        write(folder / f"{name}.wav", tone(0.8 + 0.05 * k, 22050, 1 + k % 2, seed=k), 22050)
        lines.append(f"{name}.wav,{'low' if k % 2 else 'high'},train")
    path = folder / "tones.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("source"), [f"{k:02d}" for k in range(CLIPS)])


def extract(manifest: Path, workers: int = 1) -> list[object]:
    return ["extract", "--dataset", manifest, "--allow-missing", "--features", FEATURES,
            "--shard-clips", 2, "--workers", workers, "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    work = tmp_path_factory.mktemp("undisturbed") / "work"
    run = prep(work, *extract(manifest, workers=2))
    assert run.wait() == 0, run.output
    assert f"{CLIPS} clips extracted, 0 failed, of {CLIPS}" in run.output
    return contents(work)


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
