"""Limits of the system, and calls from a script: one clear line, and nothing half done."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from fault_runs import extract, make_manifest
from runs import prep

from featreg.datasets.base import Clip, FeatregError
from featreg.datasets.console import Commands
from featreg.datasets.shards.atomic_file import DiskError, atomic_path
from featreg.datasets.shards.hdf5 import Appender, create_shard, write_strings
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.pipeline import run
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.plan import Request, ShardJob

SCRIPT = """
import sys
from featreg.extract.cli.prep import prep
sys.argv[:1] = ["prep"]
prep()
"""

# Writes a shard of 300 kB while files may have so many bytes, and prints the error.
WRITE = """
import resource, sys
from pathlib import Path
from test_limits import write_shard
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_shard(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def write_shard(path: Path) -> None:
    with create_shard(path) as file:
        frames = Appender(file, "frames", np.float32, (64,))
        audio = Appender(file, "audio", np.int16)
        rng = np.random.default_rng(0)
        for _ in range(5):
            frames.append(rng.standard_normal((100, 64)).astype(np.float32))
            audio.append(rng.integers(-99, 99, 16_000).astype(np.int16))
        frames.close()
        audio.close()
        write_strings(file, "clip_id", ["a", "\udcff"])


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5")
    write_shard(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("limit", [0, 100, 5_000, 70_000, 150_000, 250_000])
def test_wherever_the_disk_becomes_full_one_line_says_so(limit: int, tmp_path: Path) -> None:
    env = os.environ.copy()
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), env.get("PYTHONPATH", "")])
    env.pop("COVERAGE_PROCESS_CONFIG", None)
    path = tmp_path / "folder" / "x.h5"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(path), str(limit)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"DiskError {path}: the file may not grow further")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "file/inside"])
def test_a_name_that_is_taken_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with (
        pytest.raises(DiskError, match=rf"{name}: cannot be written.*move that away"),
        atomic_path(tmp_path / name) as temporary,
    ):
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("error", "scarce"),
    [
        (MemoryError(), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(24, "Too many open files"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), True),
        (OSError(2, "No such file or directory"), False),
        (RuntimeError("shape"), False),
    ],
)
def test_a_machine_that_lacks_something_is_no_failure_of_clips(
    error: Exception, scarce: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.empty(0, np.uint8)
    clip = Clip("a", tmp_path / "a.wav", "train", nothing, nothing)
    job = ShardJob(DatasetDir(tmp_path), (clip,), Request(()), {})
    monkeypatch.setattr(run, "run_jobs", lambda _, jobs, workers: ((job, error) for job in jobs))
    if scarce:
        with pytest.raises(FeatregError, match="the machine lacks memory"):
            list(run._results([job], Workers(0, 1)))
    else:
        ((_, result),) = run._results([job], Workers(0, 1))
        assert [failure.clip_id for failure in result.failures] == ["a"]


def test_a_command_that_lacks_memory_ends_in_one_line() -> None:
    @click.group(cls=Commands)
    def group() -> None:
        pass

    @group.command()
    def lack() -> None:
        raise MemoryError

    result = CliRunner().invoke(group, ["lack"])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: MemoryError")


def test_too_few_open_files_are_refused_with_the_limit_that_is_needed(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "source", ["00", "01"])
    run = prep(
        tmp_path / "work",
        *extract(manifest),
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)),
    )
    assert run.wait() == 1, run.output
    (error,) = [line for line in run.output.splitlines() if line.startswith("error:")]
    assert "24" in error
    assert "ulimit -n" in error
    assert "Traceback" not in run.output


def test_a_script_without_a_main_guard_is_told_so_once(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "source", ["00", "01"])
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ.copy()
    env["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    )
    env["FEATREG_WORK"] = str(tmp_path / "work")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), *map(str, extract(manifest))],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert '`if __name__ == "__main__":`' in error
    assert "Traceback" not in done.stdout
