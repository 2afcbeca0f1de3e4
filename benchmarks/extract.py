"""Extraction speed of featreg and of the published packages, in one run on the same audio.

    python benchmarks/extract.py --python openl3=other-env/bin/python

Every contestant (`contestants.py`) runs in its own process, on the same cores with the same
number of threads, in turns with the others (`turns.py`); a ratio is the median over rounds of
the ratio within a round. Weights are random, which does not affect the speed. Packages that
are not installed are reported and skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import soundfile
from contestants import BATCH, CONTESTANTS, MATMUL
from random_weights import write_weights
from turns import Contestant, race

# Multiplications and additions per frame, by the definition of the layers: 2 x 9 x in x out x
# height x width summed over convolutions, 2 x in x out over the others.
GFLOP = {
    "vggish": 1.727,
    "openl3": 20.4,
    "efficientat-mn04": 0.220,
    "efficientat-mn10": 1.08,
}
# Folder: format, clips, seconds of each, rate and channels.
AUDIO = {
    "mp3": ("mp3", 8, 29, 44100, 2),
    "16k": ("wav", 4, 29, 16000, 1),
    "48k": ("wav", 1, 29, 48000, 1),
    "32k": ("wav", 16, 10, 32000, 1),
}
AUDIO_OF = {
    "openl3-wav": "48k",
    "vggish-wav": "16k",
    "vggish-mp3-to-shard": "mp3",
    "efficientat": "32k",
}
TASKS = tuple(dict.fromkeys(name.partition("/")[0] for name in CONTESTANTS))


def write_audio(folder: Path) -> None:
    """Write chords with noise to the folders of `AUDIO`."""
    for name, (suffix, clips, seconds, rate, channels) in AUDIO.items():
        (folder / name).mkdir()
        t = np.arange(seconds * rate)[:, None] / rate
        for clip in range(clips):
            rng = np.random.default_rng(clip)
            chord = np.sin(2 * np.pi * t * rng.uniform(100, 2000, 8)).mean(1, keepdims=True)
            noise = rng.standard_normal((len(t), channels))
            soundfile.write(folder / name / f"{clip}.{suffix}", 0.5 * chord + 0.02 * noise, rate)


def cosine(folder: Path, task: str) -> float:
    """Smallest cosine similarity of a frame in float32 and in bfloat16."""
    a, b = (
        np.load(folder / f"{task}-featreg-{precision}.npy") for precision in ("float32", "bfloat16")
    )
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min(np.sum(a * b, axis=1) / norms))


def amount(name: str) -> tuple[float, str]:
    """Amount of work of a contestant per turn, and the unit of its speed."""
    task, _, who = name.partition("/")
    if not task.startswith("network"):
        audio = AUDIO_OF[task.partition("-mn")[0]]
        _, clips, seconds, _, _ = AUDIO[audio]
        return clips * seconds, "times real time"
    feature = who.removeprefix("featreg-")
    done = 2e-9 * MATMUL**3 if who == "matmul" else GFLOP[feature] * BATCH[feature]
    return done, "GFLOP/s"


def report(contestants: Sequence[Contestant]) -> None:
    """Print featreg's speeds and those of the other contestants."""
    speeds = {}
    for contestant in contestants:
        done, unit = amount(contestant.name)
        speeds[contestant.name.partition("/")[2]] = done / np.array(contestant.seconds)
    rivals = [name for name in speeds if not name.startswith("featreg")]
    for name, speed in speeds.items():
        ratios = [f"{np.median(speed / speeds[rival]):.2f} of {rival}" for rival in rivals]
        beside = "" if name in rivals else ", ".join(ratios)
        click.echo(f"  {name:18} {speed.max():8.2f} {unit}   {beside}")


def python_of(name: str, where: Mapping[str, str]) -> str:
    """Python interpreter of a contestant."""
    return where.get(name.partition("/")[2], sys.executable)


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=5, help="Turns that each contestant has.")
@click.option("--threads", default=os.cpu_count() or 1, help="Threads, and cores, of each.")
@click.option("--python", "pythons", multiple=True, help="PACKAGE=FILE: where PACKAGE is.")
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), help="Only these.")
def main(rounds: int, threads: int, pythons: Sequence[str], tasks: Sequence[str]) -> None:
    """Compare the extraction speed with the published packages that are installed.

    Example: python benchmarks/extract.py --python openl3=other-env/bin/python
    """
    where = dict(python.split("=", 1) for python in pythons)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_audio(folder)
        write_weights(folder)
        for task in tasks or TASKS:
            click.echo(f"{task}, {threads} threads")
            contestants = race(
                (
                    Contestant("contestants.py", name, python_of(name, where), folder, threads)
                    for name in CONTESTANTS
                    if name.startswith(f"{task}/")
                ),
                rounds,
            )
            report(contestants)
            if (folder / f"{task}-featreg-bfloat16.npy").exists():
                click.echo(f"  smallest cosine of bfloat16 to float32: {cosine(folder, task):.5f}")


if __name__ == "__main__":
    main()
