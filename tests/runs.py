"""`prep` as a user runs it: a process with others below it, that may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py

from featreg.datasets.shards.hdf5 import datasets_of

HERE = Path(__file__).parent

# Read by every Python that starts with it on its path: files whose names say so crash or
# hang whoever decodes them.
TRAPS = """
import os, signal, time
import soundfile
decode = soundfile.SoundFile.__init__
def trapped(self, file, *args, **kwargs):
    name = os.path.basename(str(file))
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in name:
        time.sleep(1e6)
    decode(self, file, *args, **kwargs)
soundfile.SoundFile.__init__ = trapped
"""


class Run:
    """A `prep` command in a session of its own; what it said is in `output` once it ended."""

    def __init__(
        self,
        work: Path,
        *arguments: object,
        traps: Path | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.work = work
        path = [str(HERE)]
        if traps is not None:
            (traps / "sitecustomize.py").write_text(TRAPS)
            path.insert(0, str(traps))
        work.mkdir(parents=True, exist_ok=True)
        self._log = work.with_suffix(".log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from featreg.extract.cli.prep import prep; prep()"]
                + [str(each) for each in arguments],
                env=os.environ | {"FEATREG_WORK": str(work), "PYTHONPATH": os.pathsep.join(path)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=before,
            )

    def wait(self, timeout_s: float = 120) -> int:
        """Exit status."""
        return self.process.wait(timeout_s)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for_shards(self, count: int) -> None:
        """Return when so many shards are there, or the run is over."""
        while self.process.poll() is None and len(list(self.work.rglob("*.h5"))) < count:
            time.sleep(0.01)

    def processes(self, kind: str = "") -> list[int]:
        """Processes of this run whose command line holds `kind`, whoever started them."""
        mark = f"FEATREG_WORK={self.work}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if (
                    folder.name.isdigit()
                    and mark in (folder / "environ").read_bytes().split(b"\0")
                    and kind in (folder / "cmdline").read_bytes().decode()
                    and "State:\tZ" not in (folder / "status").read_text()
                ):
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found)

    def kill(self, kind: str) -> None:
        """SIGKILL one process: main, a worker or a decoder; nothing if there is none."""
        words = {"worker": "spawn_main", "decoder": "throwaway"}
        victims = [self.process.pid] if kind == "main" else self.processes(words[kind])
        for victim in victims[-1:]:
            os.kill(victim, signal.SIGKILL)

    def assert_nothing_is_left(self) -> None:
        """No process outlives its run by more than a moment."""
        for _ in range(100):
            if not self.processes():
                return
            time.sleep(0.1)
        raise AssertionError(self.processes())


def prep(work: Path, *arguments: object, **options: object) -> Run:
    """A run that is over."""
    run = Run(work, *arguments, **options)  # type: ignore[arg-type]
    run.wait()
    return run


def contents(work: Path, parts: Sequence[str] = ("native", "aligned")) -> dict[str, object]:
    """Every dataset and attribute of every shard, byte for byte."""
    found: dict[str, object] = {}
    for path in sorted(work.rglob("*.h5")):
        name = str(path.relative_to(work))
        with h5py.File(path) as file:
            found |= {f"{name}@{key}": value for key, value in file.attrs.items()}
            for key, dataset in datasets_of(file).items():
                found[f"{name}/{key}"] = dataset[()].tobytes()
    return found
