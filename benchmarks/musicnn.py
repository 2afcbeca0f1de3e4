"""Speed of musicnn features, compared with the published package in the same run.

The published package (musicnn 0.1.0) requires an older NumPy than featreg, so it runs in its
own interpreter, for example one created by

    python3.11 -m venv published
    published/bin/pip install tensorflow-cpu==2.15.1 "numpy<2" librosa soundfile
    published/bin/pip install --no-deps musicnn==0.1.0
    python benchmarks/musicnn.py --published published/bin/python
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import get_args

import click
import numpy as np
import soundfile
import torch

from featreg.extract.extractors.base import Precision
from featreg.extract.extractors.musicnn import Musicnn, MusicnnConfig
from featreg.extract.weights.registry import known

# Wall time and processor time of the best repetition; the latter is more reliable on a machine
# that is busy with other work.
Seconds = tuple[float, float]

PUBLISHED = """
import sys, time
from musicnn.extractor import extractor
for _ in range(1 + int(sys.argv[2])):
    wall, processor = time.perf_counter(), time.process_time()
    extractor(sys.argv[1], model="MSD_musicnn", input_overlap=1)
    print("took", time.perf_counter() - wall, time.process_time() - processor)
"""


def published_seconds(python: str, signal: np.ndarray, repeats: int) -> Seconds:
    """Time from a WAV file at 16 kHz to features, in another interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "signal.wav")
        soundfile.write(path, signal, 16000, subtype="FLOAT")
        command = [python, "-W", "ignore", "-c", PUBLISHED, str(path), str(repeats)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    took = [line.split() for line in done.stdout.splitlines() if line.startswith("took")]
    # The first repetition, which loads TensorFlow, does not count.
    return min((float(wall), float(processor)) for _, wall, processor in took[1:])


def our_seconds(extractor: Musicnn, signal: np.ndarray, repeats: int) -> Seconds:
    """Time from a signal at 16 kHz to frames, without loading the network."""
    extractor.extract(signal)
    took = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        extractor.extract(signal)
        took.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(took)


@click.command()
@click.option("--seconds", default=60, show_default=True, help="Length of the signal.")
@click.option("--repeats", default=3, show_default=True, help="The best of so many runs counts.")
@click.option("--published", help="A Python that has the package musicnn.")
def main(seconds: int, repeats: int, published: str | None) -> None:
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 16000 * seconds).astype(np.float32)
    weights = {"musicnn-msd": known("musicnn-msd").shipped}
    took: dict[str, Seconds] = {}
    if published:
        took["musicnn 0.1.0"] = published_seconds(published, signal, repeats)
    for precision in get_args(Precision):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            extractor = Musicnn(MusicnnConfig(), weights, precision=precision)
            took[f"featreg {precision}, threads: {threads}"] = our_seconds(
                extractor, signal, repeats
            )
    click.echo("times real time, by the wall clock and the processor time; beside the first line")
    first = next(iter(took.values()))
    for name, (wall, processor) in took.items():
        click.echo(
            f"{name:30} {seconds / wall:7.1f} {seconds / processor:7.1f} "
            f"{first[0] / wall:7.2f} {first[1] / processor:7.2f}"
        )


if __name__ == "__main__":
    main()
