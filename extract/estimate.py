"""How long an extraction will take and how much disk: by what earlier runs here took.

What a run learns lies in ``WORK/DATASET/rates.json``; before the first one, stated
defaults hold, measured on one core of a 2-core AVX-512 machine.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.console import warn
from featreg.datasets.room import free_bytes
from featreg.datasets.shards import atomic_path
from featreg.datasets.workdir import DatasetDir

from .cluster import Workers
from .features import FeatureSpec
from .hearing import length_s
from .plan import Account, Plan, ShardJob
from .throwaway import ChildDied, Throwaway

# Core seconds for a second of audio: to read, decode and resample it (mp3, 44.1 kHz stereo).
_HEARING = 0.0012

# Core seconds for a row on CPU: `python benchmarks/pipeline.py --task rates`.
_NETWORK = {"audio": 3e-9, "vggish": 0.005, "openl3": 0.041, "musicnn": 0.013}

# Of the bytes that rows have in memory, those that they take on disk.
_PACKED = {"audio": 1.0, "musicnn": 0.5, "vggish": 0.9}

# Files that are looked at where no length is known, and seconds where none can be read.
_SAMPLE = 20
_CLIP_S = 30.0


@dataclass(frozen=True, slots=True)
class Rates:
    """What work costs.

    Attributes
    ----------
    hearing
        Core seconds to read, decode and resample a second of audio.
    network
        Seconds for a row of a feature (core seconds on CPU), by `_key`.
    packed
        Of the bytes that a feature's rows have in memory, those that they take on disk.
    learnt
        Whether a run in this folder measured them.
    """

    hearing: float
    network: Mapping[str, float]
    packed: Mapping[str, float]
    learnt: bool = False

    @classmethod
    def of(cls, folder: DatasetDir) -> Rates:
        """What earlier runs in this folder took, else the defaults."""
        path = folder.path / "rates.json"
        defaults = {f"{name} on cpu in float32": seconds for name, seconds in _NETWORK.items()}
        try:
            known = json.loads(path.read_text())
            return cls(
                known["hearing"],
                defaults | known["network"],
                _PACKED | known["packed"],
                True,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls(_HEARING, defaults, _PACKED)

    def learn(
        self, jobs: Sequence[ShardJob], accounts: Sequence[Account], workers: Workers
    ) -> Rates:
        """These rates, with what a run took in place of what it measured."""
        threads = max(1, workers.threads)
        accounts = _warm(accounts)
        heard_s = sum(account.heard_s for account in accounts)
        hearing = sum(
            account.seconds.get(stage, 0.0)
            for account in accounts
            for stage in ("read", "decode", "resample")
        )
        rows: Counter[str] = Counter()
        network: Counter[str] = Counter()
        written: Counter[str] = Counter()
        for account in accounts:
            rows.update(account.rows)
            network.update(account.network)
            written.update(account.written)
        specs = {spec.name: spec for job in jobs for spec in job.request.features}
        measured = {name: spec for name, spec in specs.items() if rows[name]}
        return Rates(
            hearing / heard_s if heard_s else self.hearing,
            {
                **self.network,
                **{
                    _key(spec): network[name]
                    / rows[name]
                    * (threads if spec.device == "cpu" else 1)
                    for name, spec in measured.items()
                },
            },
            {
                **self.packed,
                **{
                    name: written[name] / (rows[name] * row_bytes(spec))
                    for name, spec in measured.items()
                },
            },
            learnt=True,
        )

    def write(self, folder: DatasetDir) -> None:
        """Keep them for the next run."""
        known = {"hearing": self.hearing, "network": self.network, "packed": self.packed}
        with atomic_path(folder.path / "rates.json") as temporary:
            temporary.write_text(json.dumps(known, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will take: hours of audio, core hours, bytes; `str` is for people.

    `gpu_h` is 0 on CPU; `learnt` is whether earlier runs here measured the rates.
    """

    audio_h: float
    core_h: float
    gpu_h: float
    bytes: int
    learnt: bool

    def hours(self, workers: Workers) -> float:
        """Hours on these workers."""
        cores = max(1, workers.count) * max(1, workers.threads)
        return max(self.core_h / cores, self.gpu_h / max(1, workers.count))

    def describe(self, workers: Workers) -> str:
        """What to expect, in words."""
        source = "measured by earlier runs here" if self.learnt else "by default rates"
        gpu = f" and {self.gpu_h:.2f} GPU hours" if self.gpu_h else ""
        took = f"{self.core_h:.2f} core hours{gpu}"
        if workers.scheduler is None:
            count = max(1, workers.count)
            took = f"about {_in_words(self.hours(workers))} on {count} workers ({took})"
        return (
            f"expected ({source}): {self.audio_h:.2f} h of audio, {took}, "
            f"{_size(self.bytes)} of disk"
        )


def estimate(dataset: Dataset, folder: DatasetDir, plan: Plan) -> Estimate:
    """What a plan will take."""
    rates = Rates.of(folder)
    known = folder.read_durations() | {
        clip.clip_id: clip.duration_s for clip in dataset.clips if clip.duration_s is not None
    }
    usual = sum(known.values()) / len(known) if known else _sample_length(plan)
    audio_s = core_s = gpu_s = disk = 0.0
    for job in plan.jobs:
        seconds = sum(known.get(clip.clip_id, usual) for clip in job.clips)
        audio_s += seconds
        core_s += seconds * rates.hearing
        for spec in job.request.features:
            rows = seconds / spec.extractor().clock.hop_s
            # A feature that nobody measured yet: as slow as the slowest that somebody did.
            took = rows * rates.network.get(_key(spec), max(_NETWORK.values()))
            if spec.device == "cpu":
                core_s += took
            else:
                gpu_s += took
            disk += rows * row_bytes(spec) * rates.packed.get(spec.name, 1.0)
    return Estimate(audio_s / 3600, core_s / 3600, gpu_s / 3600, math.ceil(disk), rates.learnt)


def _sample_length(plan: Plan) -> float:
    """Mean length of some of the clips, in seconds, as their files declare it."""
    clips = [clip for job in plan.jobs for clip in job.clips]
    found = []
    with closing(Throwaway(length_s, timeout_s=3.0)) as look:
        for clip in clips[:: max(1, len(clips) // _SAMPLE)]:
            with suppress(ChildDied):
                found.append(look(clip))
    lengths = [length for length in found if length is not None]
    return sum(lengths) / len(lengths) if lengths else _CLIP_S


def check_space(folder: DatasetDir, needed: Estimate) -> None:
    """Refuse to start what cannot end.

    Raises
    ------
    FeatregError
        If the disk lacks the bytes by far; where it is close there is a warning.
    """
    free = free_bytes(folder.path)
    words = f"{folder.path}: about {_size(needed.bytes)} are needed, and {_size(free)} are free"
    # Before the first run the estimate leaves out what compression will save.
    if needed.bytes > free * (1.0 if needed.learnt else 2.0):
        raise FeatregError(f"{words}; free some, or work on another disk (--work)")
    if needed.bytes > 0.9 * free:
        warn(words)


def _warm(accounts: Sequence[Account]) -> Sequence[Account]:
    """Accounts without the first of each worker, which loaded its networks; all if none is left."""
    started: set[str] = set()
    warm = []
    for account in accounts:
        if account.worker in started:
            warm.append(account)
        started.add(account.worker)
    return warm or accounts


def row_bytes(spec: FeatureSpec) -> int:
    """Bytes of a row in memory."""
    import numpy as np

    extractor = spec.extractor()
    return extractor.dim * np.dtype(extractor.dtype).itemsize


def _key(spec: FeatureSpec) -> str:
    return f"{spec.name} on {spec.device} in {spec.precision}"


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _in_words(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"
