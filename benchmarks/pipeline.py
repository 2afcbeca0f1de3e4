"""Overhead of the extraction pipeline, measured as ratios within one run.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --task memory

rates        core seconds and bytes per hour of audio, by feature
end-to-end   VGGish from mp3 to shards, relative to its network alone on the same cores
workers      two workers relative to one, with one thread each
memory       peak memory of a worker, early and late in a run over 10,000 clips
align        `prep align` for VGGish and OpenL3 at 0.1 s, per core; and the bytes that it
             writes per second, relative to the speed of the disk

Weights are random, which does not affect the speed. Each task alternates with its reference;
a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import psutil
import soundfile
from random_weights import write_weights
from synthetic_dataset import make_dataset, write_audio

from featreg.datasets.shards.native import NativeHeader, native_writer
from featreg.datasets.shards.native_index import shard_name
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import AlignJob, align_shard, plan_alignment
from featreg.extract.extractors.base import Array, Extractor
from featreg.extract.extractors.registry import (
    FeatureSpec,
    build_extractors,
    extractor_class,
    make_config,
)
from featreg.extract.pipeline.dask_pool import Workers, run_jobs
from featreg.extract.pipeline.plan import Request, ShardJob, ShardResult, make_plan
from featreg.extract.pipeline.shard_job import extract_shard
from featreg.extract.weights.cache import locate

SECONDS = 29.1
# Bytes of an aligned clip: audio, and VGGish and OpenL3 at 0.1 s.
CLIP_BYTES = round(SECONDS * 16000) * 2 + 291 * (128 + 512) * 4
CORES = len(os.sched_getaffinity(0))


# Rate and channels of mp3 files: those of MagnaTagATune, and the most common ones.
FORMATS = {"16 kHz mono": (16000, 1), "44.1 kHz stereo": (44100, 2)}


def make_spec(name: str, weights: Path | None = None) -> FeatureSpec:
    """A feature with default settings on CPU."""
    config = make_config(name, {})
    names = extractor_class(name).weight_names(config)
    files = [
        (each, weights / f"{each}.safetensors" if weights else locate(each, {})) for each in names
    ]
    return FeatureSpec(name, config, tuple(files))


class Extraction:
    """Extracts the same clips repeatedly; `accounts` holds the results of the last time."""

    def __init__(
        self,
        paths: list[Path],
        clips: int,
        shard_clips: int,
        workers: Workers,
        weights: Path,
        features: tuple[FeatureSpec, ...] | None = None,
    ) -> None:
        self.dataset = make_dataset(paths, clips)
        self.seconds = soundfile.info(paths[0]).duration
        self.folder = DatasetDir(Path(tempfile.mkdtemp(dir=weights)) / "benchmark")
        self.workers = workers
        usual = (make_spec("audio"), make_spec("vggish", weights))
        self.request = Request(features or usual, shard_clips=shard_clips)
        self.accounts: list[ShardResult] = []

    def __call__(self) -> float:
        """Speed relative to real time, while every worker is busy and past its first shard.

        The first shard includes loading the network; workers that finish early are idle.
        """
        shutil.rmtree(self.folder.path, ignore_errors=True)
        self.folder.path.mkdir(parents=True)
        jobs = [
            replace(job, threads=self.workers.threads)
            for job in make_plan(self.dataset, self.folder, self.request).jobs
        ]
        self.accounts = []
        shards: dict[str, list[tuple[float, float, float]]] = {}
        for _, outcome in run_jobs(timed, jobs, self.workers):
            if isinstance(outcome, Exception):
                raise outcome
            account, begin, end = outcome
            self.accounts.append(account)
            seconds = sum(account.durations.values())
            shards.setdefault(account.worker, []).append((begin, end, seconds))
        begin = max(sorted(each)[0][1] for each in shards.values())
        end = min(max(stop for _, stop, _ in each) for each in shards.values())
        audio_s = sum(
            audio_s * max(0.0, min(stop, end) - max(start, begin)) / (stop - start)
            for each in shards.values()
            for start, stop, audio_s in each
        )
        return audio_s / (end - begin)


def timed(job: ShardJob) -> tuple[ShardResult, float, float]:
    """Call `extract_shard`, and measure when it began and ended."""
    begin = time.time()
    account = extract_shard(job)
    return account, begin, time.time()


def end_to_end(folder: Path, rounds: int, clips: int) -> None:
    """All cores in one worker: files to shards, and batches to frames."""
    for name, (rate, channels) in FORMATS.items():
        paths = write_audio(folder / f"{rate}", rate, channels, SECONDS, "mp3")
        extraction = Extraction(paths, clips, 64, Workers(0, CORES), folder)
        _, vggish = build_extractors(extraction.request.features, CORES)
        noise = np.random.default_rng(0).standard_normal(1 << 21).astype(np.float32)
        batch = np.resize(vggish.inputs(noise, 0, 16), (vggish.batch_frames, 96, 64))

        def network(vggish: Extractor = vggish, batch: Array = batch) -> float:
            turns = round((clips - 64) * 30 / len(batch))
            begin = time.perf_counter()
            for _ in range(turns):
                vggish.network(batch)
            return turns * len(batch) * vggish.timing.hop_s / (time.perf_counter() - begin)

        network()
        ratio, whole, alone = compare(rounds, extraction, network)
        click.echo(f"  mp3 of {name}: {whole:.0f} times real time, network alone {alone:.0f}")
        click.echo(f"  ratio {ratio:.2f} (target 0.80); {stages(extraction.accounts)}")
        # The same from core seconds, which other programs on the machine disturb less.
        begin = core_seconds()
        extraction()
        frames = sum(
            round(seconds / vggish.timing.hop_s)
            for each in extraction.accounts
            for seconds in each.durations.values()
        )
        everything = (core_seconds() - begin) / frames
        begin = core_seconds()
        vggish.network(batch)
        vggish.network(batch)
        share = (core_seconds() - begin) / (2 * len(batch)) / everything
        click.echo(f"  of all core seconds the network alone takes {share:.2f}")


def core_seconds() -> float:
    """Processor seconds of this process and its decoders."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in family)


def stages(accounts: list[ShardResult]) -> str:
    """Share of each stage in the total time."""
    spent = {stage: sum(each.seconds[stage] for each in accounts) for stage in accounts[0].seconds}
    return ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in spent.items())


def compare(
    rounds: int, one: Callable[[], float], other: Callable[[], float]
) -> tuple[float, float, float]:
    """Median over rounds of the ratio one / other, and of each time."""
    pairs = [(one(), other()) for _ in range(rounds)]
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def rates(folder: Path, rounds: int, clips: int) -> None:
    """Core seconds and bytes per hour of audio by feature, as used in docs/costs.md."""
    lengths = {
        "audio": (32, SECONDS),
        "vggish": (16, SECONDS),
        "musicnn": (8, SECONDS),
        "openl3": (1, 10.0),
    }
    for name, (count, seconds) in lengths.items():
        paths = write_audio(folder / f"{name}-mp3", 44100, 2, seconds, "mp3")
        weights = None if name == "musicnn" else folder
        features = (make_spec(name, weights),)
        extraction = Extraction(paths, 2 * count, count, Workers(0, 1), folder, features)
        extraction()  # loads what is loaded once
        begin = core_seconds()
        extraction()
        took = core_seconds() - begin
        hours = 2 * count * seconds / 3600
        size = sum(account.written[name] for account in extraction.accounts)
        click.echo(
            f"  {name:8} {took / hours:7.1f} core seconds an hour of audio "
            f"({hours * 3600 / took:6.1f} times real time per core), {size / hours / 1e6:6.1f} MB"
        )


def two_workers(folder: Path, rounds: int, clips: int) -> None:
    """Two processes with one thread each, relative to one."""
    if CORES < 2:
        click.echo("  left out: one core")
        return
    paths = write_audio(folder / "workers", 16000, 1, SECONDS, "mp3")
    one = Extraction(paths, clips, 32, Workers(1, 1), folder)
    two = Extraction(paths, clips, 32, Workers(2, 1), folder)
    ratio, fast, slow = compare(rounds, two, one)
    click.echo(f"  two workers {fast:.0f} times real time, one {slow:.0f}")
    click.echo(f"  ratio {ratio:.2f} (target 1.8)")


def memory(folder: Path, rounds: int, clips: int) -> None:
    """Peak memory of a worker after a tenth of many short clips, and after all of them."""
    paths = write_audio(folder / "short", 16000, 1, 1.0, "wav")
    extraction = Extraction(paths, clips, max(8, clips // 100), Workers(1, 1), folder)
    extraction()
    peaks = [account.peak_bytes / 1e6 for account in extraction.accounts]
    tenth = peaks[len(peaks) // 10]
    click.echo(f"  after {clips // 10} clips {tenth:.0f} MB, after {clips} {peaks[-1]:.0f} MB")
    click.echo(f"  ratio {peaks[-1] / tenth:.3f} (target 1: flat)")


def write_native(folder: DatasetDir, clips: int) -> None:
    """Write native shards of random numbers in the form of VGGish, OpenL3 and audio."""
    rng = np.random.default_rng(0)
    steps = {"scale": 4 / 255, "offset": -2.0}
    streams = {
        "audio": (1, "int16", 1 / 32767, 0.0, FrameTiming(1 / 16000, 1 / 16000, 0.0)),
        "vggish": (128, "uint8", steps["scale"], steps["offset"], FrameTiming(0.96, 0.975, 0.4875)),
        "openl3": (512, "float32", 1.0, 0.0, FrameTiming(0.1, 1.0, 0.0)),
    }
    folder.write_dataset(make_dataset([folder.path], clips), ["vggish", "openl3"])
    for name, (dim, dtype, scale, offset, timing) in streams.items():
        header = NativeHeader("benchmark", name, dim, dtype, scale, offset, timing, 16000, "", {})
        rows = rng.standard_normal((round(SECONDS / timing.hop_s), dim)) * (
            3000 if dim == 1 else 30
        )
        rows = rows.astype(dtype)
        for first in range(0, clips, 64):
            with native_writer(folder.native(name) / shard_name(first // 64), header) as file:
                for k in range(first, min(clips, first + 64)):
                    file.append(f"{k:05d}", rows, SECONDS, "")


def disk_rate(folder: Path, size: int) -> float:
    """Speed of writing and syncing one file of this size, in bytes per second."""
    block = os.urandom(1 << 22)
    begin = time.perf_counter()
    with (folder / "plain").open("wb") as file:
        for _ in range(max(1, size // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return size / (time.perf_counter() - begin)


def aligned(folder: Path, rounds: int, clips: int) -> None:
    """Reading native shards, aligning and writing, on one core and on all."""
    place = DatasetDir(folder / "work" / "aligning" / "benchmark")
    write_native(place, clips)
    for mode in ("linear", "area", "repeat"):  # the default last: it is written on all cores too
        plan = plan_alignment(place, ["vggish", "openl3"], 0.1, mode)  # type: ignore[arg-type]
        begin = time.process_time()
        for job in plan.jobs:
            align_shard(job)
        core_s = time.process_time() - begin
        speed = clips * SECONDS / core_s
        click.echo(
            f"  {mode:7} {speed:6.0f} times real time per core (target 2000), "
            f"{CLIP_BYTES * clips / core_s / 1e6:.0f} MB written a core second"
        )
        shutil.rmtree(plan.target)
    size = clips * CLIP_BYTES

    def write() -> float:
        shutil.rmtree(plan.target, ignore_errors=True)
        times = []
        for _, outcome in run_jobs(timed_align, plan.jobs, Workers(CORES, 1)):
            if isinstance(outcome, Exception):
                raise outcome
            times.append(outcome)
        # From the start of the first shard, when the workers have started.
        return size / (max(end for _, end in times) - min(begin for begin, _ in times))

    ratio, ours, disk = compare(rounds, write, lambda: disk_rate(folder, size))
    click.echo(f"  {mode}: read, aligned and written {ours / 1e6:.0f} MB/s on {CORES} cores")
    click.echo(f"  disk {disk / 1e6:.0f} MB/s; ratio {ratio:.2f} (target: 200 MB/s, or 1)")


def timed_align(job: AlignJob) -> tuple[float, float]:
    """Call `align_shard`, and measure when it began and ended."""
    begin = time.time()
    align_shard(job)
    return begin, time.time()


TASKS = {
    "rates": rates,
    "end-to-end": end_to_end,
    "workers": two_workers,
    "memory": memory,
    "align": aligned,
}
CLIPS = {"rates": 0, "end-to-end": 192, "workers": 192, "memory": 10000, "align": 768}


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=3, help="Turns that each side has.")
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(TASKS)), help="Only these.")
@click.option("--clips", type=click.IntRange(128), help="Clips.  [default: by task]")
def main(rounds: int, tasks: tuple[str, ...], clips: int | None) -> None:
    """Measure whole extractions and alignments.

    Example: python benchmarks/pipeline.py --task end-to-end
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder)
        for task in tasks or TASKS:
            click.echo(f"{task}, {CORES} cores")
            TASKS[task](folder, rounds, clips or CLIPS[task])


if __name__ == "__main__":
    main()
