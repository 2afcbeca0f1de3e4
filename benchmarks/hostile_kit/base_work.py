"""A small working folder with features, aligned shards and trained runs."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np

from .commands import call
from .signals import sweep, write

RATE = 16000
CLASSES = ("low", "high")
CLIPS = {"train": 8, "valid": 4, "test": 4}
FEATURE = "tones"
OPTIONS = [
    "--encoder",
    "mel_cnn",
    "--width",
    "2",
    "--crop",
    "0.5",
    "--batch-size",
    "4",
    "--chunks",
    "2",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--precision",
    "float32",
]
# Options of each run beside those. `half` is killed; `whole` is what it would have become.
RUNS = {
    "plain": ["--epochs", 2],
    "conreg": ["--epochs", 2, "--reg", "conreg"],
    "whole": ["--epochs", 12, "--seed", 1],
    "half": ["--epochs", 12, "--seed", 1],
}


def build(
    folder: Path, runs: Sequence[str] = tuple(RUNS), classes: tuple[str, str] = CLASSES
) -> Path:
    """Create the working folder in other processes, so that this one stays small and can fork."""
    with _apart(_build, folder, runs, classes) as process:
        process.join()
    reason = folder / "reason"
    if process.exitcode or reason.exists():
        said = reason.read_text() if reason.exists() else f"status {process.exitcode}"
        raise RuntimeError(f"the working folder could not be made: {said}")
    if "half" in runs:
        _interrupt(folder / "work")
    return folder / "work"


def extract(folder: Path, work: Path) -> list[object]:
    """Arguments of ``prep`` that extract the clips in `folder`."""
    return ["extract", "--dataset", folder / "list.csv", "--features", f"audio,{FEATURE}",
            "--set", f"{FEATURE}.folder={folder / 'tones'}", "--set", f"{FEATURE}.hop=0.1",
            "--shard-clips", 4, "--work", work]  # fmt: skip


def run_words(name: str, work: Path) -> list[object]:
    """Arguments of ``train`` that train a run."""
    return ["run", *OPTIONS, *RUNS[name], "--run-name", name, "--work", work]


@contextmanager
def _apart(target: Callable[..., object], *arguments: object) -> Iterator[ForkProcess]:
    """A process that is killed, with its own, when the block ends."""
    process = multiprocessing.get_context("fork").Process(target=_lead, args=(target, *arguments))
    process.start()
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # not yet a leader, or over
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


def _lead(target: Callable[..., object], *arguments: object) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    target(*arguments)


def _build(folder: Path, runs: Sequence[str], classes: tuple[str, str]) -> None:
    lines = [f"path,clip_id,split,{','.join(classes)}"]
    (folder / "tones").mkdir()
    number = 0
    for split, count in CLIPS.items():
        for k in range(count):
            rng = np.random.default_rng(number)
            label = (k % 2, (k // 2) % 2)
            tone = 0.2 * label[0] * sweep(1.2, RATE, 1, 5) + 0.2 * label[1] * sweep(1.2, RATE, 1, 6)
            noise = 0.05 * rng.standard_normal(tone.shape)
            write(folder / f"{number}.wav", tone + noise, RATE, subtype="PCM_16")
            np.save(folder / "tones" / f"c{number}.npy", rng.standard_normal((12, 3), np.float32))
            lines.append(f"{number}.wav,c{number},{split},{label[0]},{label[1]}")
            number += 1
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    work = folder / "work"
    commands = [("prep", extract(folder, work))]
    commands += [("prep", ["align", "--resolution", 0.1, "--work", work])]
    commands += [("train", run_words(name, work)) for name in runs if name != "half"]
    for command, words in commands:
        done = call(command, *words)
        if done.status:
            (folder / "reason").write_text(done.last)
            return


def _interrupt(work: Path) -> None:
    """Train the run `half`, and kill it after its second epoch."""
    words = [*run_words("half", work), "--save-every", 0]
    folder = work / "runs" / "half"
    with _apart(call, "train", *words) as process:
        while process.is_alive():
            metrics = folder / "metrics.csv"
            epochs = len(metrics.read_text().splitlines()) - 1 if metrics.is_file() else 0
            if epochs >= 2 and (folder / "state.pt").is_file():
                break
            time.sleep(0.005)
    if (folder / "report.json").exists():
        raise RuntimeError("the run was over before it could be killed")


def copy(base: Path, folder: Path) -> Path:
    """A copy of the working folder, to be damaged."""
    return Path(shutil.copytree(base, folder / "work"))
