"""Speed of `train predict` on a folder of short clips, with the network of the preset `demo`.

    python benchmarks/predict.py

The time includes the start of the command, decoding and the CSV. The weights are random, which
does not affect the speed. On a machine that does other work too, the core seconds tell what the
command takes: with both of two cores to itself, half of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from synthetic_dataset import write_audio

from featreg.train.deploy.model_file import Card, write_model

SECONDS = 4.0
PROGRAM = "from featreg.train.cli.train import train; train()"


def write_demo_model(path: Path) -> None:
    """Write a model with the encoder of the preset `demo`: chunks of 3 s, three per clip."""
    options = {"width": 32, "samples": 48000}
    classes = tuple(f"class {k}" for k in range(10))
    card = Card(
        "demo", "harmonic_cnn", options, "none", classes, "multi-label", 16000, 48000, 3, 0.1
    )
    write_model(path, card.build(), card)


@click.command(context_settings={"show_default": True})
@click.option("--clips", default=1000, help="Clips of 4 s.")
@click.option("--rate", default=22050, help="Sample rate of the files in Hz.")
def main(clips: int, rate: int) -> None:
    """Measure `train predict` on clips of 4 s.

    Example: python benchmarks/predict.py --clips 200
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_audio(folder / "audio", rate, 1, SECONDS, "wav")
        listed = []
        for k in range(clips):
            (link := folder / f"{k}.wav").symlink_to(paths[k % len(paths)])
            listed.append(str(link))
        write_demo_model(model := folder / "model.safetensors")
        line = [sys.executable, "-c", PROGRAM, "predict", "-", "--run", str(model)]
        line += ["-o", str(folder / "scores.csv")]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(line, input="\n".join(listed), text=True, check=True, capture_output=True)
        seconds = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Decoders that outlive the command are not counted; they take about a tenth.
        core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        audio = clips * SECONDS
        click.echo(f"predict, {len(os.sched_getaffinity(0))} cores")
        click.echo(
            f"  {clips} clips in {seconds:.1f} s: {audio / seconds:.0f} times real time "
            f"({core:.1f} core seconds, load {os.getloadavg()[0]:.0f})"
        )


if __name__ == "__main__":
    main()
