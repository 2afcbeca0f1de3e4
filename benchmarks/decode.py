"""Time of decoding with all of featreg's checks, relative to soundfile.

    python benchmarks/decode.py

Both alternate in one process, and both average the channels. A ratio is the median over the
rounds of featreg's time divided by soundfile's in the same round.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import soundfile

from featreg.datasets.allocator import keep_memory
from featreg.datasets.audio.decode import decode
from featreg.datasets.base import Clip

NOTHING = np.empty(0, np.uint8)
FILES = [
    ("mp3", 44100, 2),
    ("mp3", 16000, 1),
    ("flac", 44100, 2),
    ("wav", 44100, 2),
    ("wav", 16000, 1),
    ("ogg", 44100, 2),
]


def plain(path: Path) -> None:
    """Decode with soundfile."""
    soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)


def checked(path: Path) -> None:
    """Decode with featreg."""
    decode(Clip("a", path, "train", NOTHING, NOTHING))


def seconds(work: Callable[[Path], None], path: Path) -> float:
    """Time of one call in seconds."""
    begin = time.perf_counter()
    work(path)
    return time.perf_counter() - begin


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=25, help="Measurements of each file.")
@click.option("--seconds", "length_s", default=30.0, help="Length of a file.")
def main(rounds: int, length_s: float) -> None:
    """Decode files of each container with featreg and with soundfile.

    Example: python benchmarks/decode.py --rounds 9
    """
    keep_memory()  # as in an extraction
    click.echo(f"decoding {length_s:g} s of audio")
    with tempfile.TemporaryDirectory() as folder:
        for name, rate, channels in FILES:
            t = np.arange(round(length_s * rate))[:, None] / rate
            noise = np.random.default_rng(0).standard_normal((len(t), channels))
            path = Path(folder) / f"a.{name}"
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * t) + 0.05 * noise, rate)
            plain(path), checked(path)
            times = np.array(
                [[seconds(checked, path), seconds(plain, path)] for _ in range(rounds)]
            )
            ours, theirs = 1000 * np.median(times, axis=0)
            ratio = np.median(times[:, 0] / times[:, 1])
            click.echo(
                f"  {name} {rate} Hz x {channels}  featreg {ours:.1f} ms, "
                f"soundfile {theirs:.1f} ms, ratio {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
