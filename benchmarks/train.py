"""Training speed in one run: a step, the overhead of Con-Reg, and the loading of crops.

    python benchmarks/train.py

step    the full harmonic CNN on 16 crops of 5 s, relative to the published eager float32 step
conreg  a step with Con-Reg on 640 columns, relative to a step without
unlabelled  a step with `hint`, and one with as many unlabelled clips as labelled ones, relative to
        a step without
loader  random crops of 5 s from aligned shards, with one reading thread per core, relative to
        decoding the clip's mp3 for each crop

Contestants (`train_contestants.py`) take turns (`turns.py`); a ratio is the median over
rounds of the ratio within a round.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import soundfile
from train_contestants import BATCH, CLASSES, CONTESTANTS, CROPS, FEATURES, FILES
from turns import Contestant, race

from featreg.datasets.base import Clip
from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer
from featreg.datasets.shards.native_index import shard_name

SECONDS, RATE, RESOLUTION_S = 29.1, 16000, 0.1
SHARDS, CLIPS = 8, 64  # a shard
TASKS = tuple(dict.fromkeys(name.partition("/")[0] for name in CONTESTANTS))


def write_aligned(folder: Path) -> None:
    """Write clips of noise, with quantized VGGish frames, repeated ten times, and OpenL3 frames."""
    columns, start = {}, 0
    for name, dim in FEATURES.items():
        columns[name] = {"dim": dim, "columns": [start, start + dim]}
        start += dim
    names = tuple(f"tag {k}" for k in range(CLASSES))
    header = AlignedHeader("benchmark", "multi-label", names, RESOLUTION_S, "repeat", RATE, columns)
    rng = np.random.default_rng(0)
    frames, samples = -(-round(SECONDS * RATE) // round(RESOLUTION_S * RATE)), round(SECONDS * RATE)
    for shard in range(SHARDS):
        path = folder / shard_name(shard)
        with aligned_writer(path, header, sources="benchmark") as writer:
            for k in range(CLIPS):
                steps = rng.integers(0, 256, (-(-frames // 10), FEATURES["vggish"]))
                vggish = np.repeat(steps * 4 / 255 - 2, 10, axis=0)[:frames].astype(np.float32)
                openl3 = rng.standard_normal((frames, FEATURES["openl3"])).astype(np.float32)
                audio = rng.integers(-9000, 9000, samples).astype(np.int16)
                label = (rng.random(CLASSES) < 0.05).astype(np.uint8)
                clip = Clip(f"{shard}-{k}", Path("none"), "train", label, np.ones_like(label))
                writer.append(clip, {"vggish": vggish, "openl3": openl3}, audio, SECONDS)


def write_mp3(folder: Path) -> None:
    """Write chords with noise, of the length of MagnaTagATune's clips."""
    folder.mkdir()
    t = np.arange(round(SECONDS * 44100))[:, None] / 44100
    for k in range(8):
        rng = np.random.default_rng(k)
        chord = np.sin(2 * np.pi * t * rng.uniform(100, 2000, 8)).mean(1, keepdims=True)
        noise = 0.02 * rng.standard_normal((len(t), 1))
        soundfile.write(folder / f"{k}.mp3", 0.5 * chord + noise, 44100)


def report(task: str, contestants: Sequence[Contestant]) -> None:
    """Print seconds per step or crops per second, relative to the first contestant."""
    if not contestants:
        return
    amounts = [FILES if each.name == "loader/mp3" else CROPS for each in contestants]
    first = amounts[0] / np.array(contestants[0].seconds)
    for contestant, amount in zip(contestants, amounts, strict=True):
        seconds = np.array(contestant.seconds)
        who = contestant.name.partition("/")[2]
        ratio = "" if contestant is contestants[0] else f"{np.median(amount / seconds / first):.3f}"
        if task == "loader":
            speed = f"{(amount / seconds).max():8.0f} crops/s"
        else:
            speed = f"{seconds.min():8.3f} s a step of {BATCH} crops"
        click.echo(
            f"  {who:24} {speed}" + (f"   {ratio} times {TASK_NAMES[task]}" if ratio else "")
        )


TASK_NAMES = {
    "step": "the published",
    "conreg": "the plain",
    "unlabelled": "the plain",
    "loader": "decoding",
}


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=5, help="Turns that each contestant has.")
@click.option("--threads", default=os.cpu_count() or 1, help="Threads, or workers, of each.")
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), help="Only these.")
def main(rounds: int, threads: int, tasks: Sequence[str]) -> None:
    """Compare the training speed with the published code.

    Example: python benchmarks/train.py --task step
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for task in tasks or TASKS:
            if task == "loader":
                write_aligned(folder / "aligned")
                write_mp3(folder / "mp3")
            click.echo(f"{task}, {threads} threads")
            names = [name for name in CONTESTANTS if name.startswith(f"{task}/")]
            script = "train_contestants.py"
            report(
                task,
                race(
                    (Contestant(script, n, sys.executable, folder, threads) for n in names), rounds
                ),
            )


if __name__ == "__main__":
    main()
