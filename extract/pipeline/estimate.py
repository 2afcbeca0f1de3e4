"""How long an extraction will take, and how much disk that and an alignment will.

What an extraction learns lies in ``WORK/DATASET/rates.json``; before the first one, stated
defaults hold, measured on one core of a 2-core AVX-512 machine.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from featreg.datasets.base import Dataset
from featreg.datasets.shards.hdf5 import atomic_path
from featreg.datasets.shards.workdir import DatasetDir

from ..alignment.align_shards import AlignPlan
from ..extractors.registry import FeatureSpec
from .child_process import ChildDied, ChildProcess
from .dask_pool import Workers
from .decode import length_s
from .plan import Plan, ShardJob, ShardResult
from .space import Space

# Core seconds for a second of audio: to read, decode and resample it (mp3, 44.1 kHz stereo).
_HEARING = 0.0012

# Core seconds for a row on CPU in float32: `python benchmarks/pipeline.py --task rates`.
_NETWORK = {"audio": 3e-9, "vggish": 0.005, "openl3": 0.041, "musicnn": 0.013}

# What a row takes elsewhere, as a part of that. On CPU as measured with OpenL3; a GPU's is
# assumed, 20 TFLOP/s: docs/costs.md.
_ELSEWHERE = {"cpu in float32": 1.0, "cpu in bfloat16": 0.55}
_GPU = 0.025

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
    options
        Core seconds to read, decode and resample a second of audio.
    network
        Seconds for a row of a feature (core seconds on CPU), by `_key`, where a run in this
        folder measured them.
    packed
        Of the bytes that a feature's rows have in memory, those that they take on disk.
    learnt
        Whether a run in this folder measured anything.
    """

    options: float
    network: Mapping[str, float]
    packed: Mapping[str, float]
    learnt: bool = False

    def row_s(self, spec: FeatureSpec) -> float:
        """Seconds for a row of a feature: core seconds on CPU."""
        if (measured := self.network.get(_key(spec))) is not None:
            return measured
        # A feature of the user's: as slow as the slowest of ours.
        usual = _NETWORK.get(spec.name, max(_NETWORK.values()))
        return usual * _ELSEWHERE.get(f"{spec.device} in {spec.precision}", _GPU)

    def measured(self, spec: FeatureSpec) -> bool:
        """Whether a run in this folder computed such rows."""
        return _key(spec) in self.network

    @classmethod
    def of(cls, folder: DatasetDir) -> Rates:
        """What earlier runs in this folder took, else the defaults."""
        path = folder.path / "rates.json"
        try:
            known = json.loads(path.read_text())
            return cls(
                known["options"],
                dict(known["network"]),
                _PACKED | known["packed"],
                True,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls(_HEARING, {}, _PACKED)

    def learn(self, jobs: Sequence[ShardJob], accounts: Sequence[ShardResult]) -> Rates:
        """These rates, with what a run took in place of what it measured."""
        accounts = _warm(accounts)
        audio_s = sum(account.audio_s for account in accounts)
        hearing = sum(
            account.seconds.get(stage, 0.0)
            for account in accounts
            for stage in ("read", "decode", "resample")
        )
        rows: Counter[str] = Counter()
        network: defaultdict[str, float] = defaultdict(float)
        written: Counter[str] = Counter()
        specs = {spec.name: spec for job in jobs for spec in job.request.features}
        for account in accounts:
            rows.update(account.rows)
            written.update(account.written)
            for name, seconds in account.network.items():
                # A cluster's workers need not be alike.
                network[name] += seconds * (account.threads if specs[name].device == "cpu" else 1)
        measured = {name: spec for name, spec in specs.items() if rows[name]}
        return Rates(
            hearing / audio_s if audio_s else self.options,
            {
                **self.network,
                **{_key(spec): network[name] / rows[name] for name, spec in measured.items()},
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
        known = {"options": self.options, "network": self.network, "packed": self.packed}
        with atomic_path(folder.path / "rates.json") as temporary:
            temporary.write_text(json.dumps(known, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will take.

    Attributes
    ----------
    audio_h
        Hours of audio to decode.
    core_h, gpu_h
        Hours of a core, and of a GPU: 0 on CPU.
    bytes
        On disk, on top of what is there.
    anew
        Most bytes of one shard that is there twice while it is written anew.
    learnt
        Whether earlier runs here measured the rates.
    assumed
        Features of which they did not.
    """

    audio_h: float
    core_h: float
    gpu_h: float
    bytes: int
    anew: int
    learnt: bool
    assumed: tuple[str, ...] = ()

    def hours(self, workers: Workers) -> float:
        """Hours on these workers."""
        cores = max(1, workers.count) * max(1, workers.threads)
        return max(self.core_h / cores, self.gpu_h / max(1, workers.count))

    def space(self, folder: DatasetDir, workers: Workers) -> Space:
        """Room that it needs at its fullest moment."""
        likely = self.bytes + self.anew * max(1, workers.count)
        # Before the first run the estimate leaves out what compression will save.
        certain = self.learnt and not self.assumed
        return Space.on_disk(folder.path, likely, likely if certain else likely // 2)

    def describe(self, workers: Workers) -> str:
        """What to expect, in words."""
        source = "measured by earlier runs here" if self.learnt else "by default rates"
        if self.learnt and self.assumed:
            source += f", {', '.join(self.assumed)} by default rates"
        gpu = f" and {self.gpu_h:.2f} GPU hours" if self.gpu_h else ""
        took = f"{self.core_h:.2f} core hours{gpu}"
        if workers.scheduler is None:
            count = max(1, workers.count)
            took = f"about {_in_words(self.hours(workers))} on {count} workers ({took})"
        return f"expected ({source}): {self.audio_h:.2f} h of audio, {took}"


def estimate(dataset: Dataset, folder: DatasetDir, plan: Plan) -> Estimate:
    """What a plan will take: of clips whose rows are there already, nothing."""
    rates = Rates.of(folder)
    known = folder.read_durations() | {
        clip.clip_id: clip.duration_s for clip in dataset.clips if clip.duration_s is not None
    }
    usual = sum(known.values()) / len(known) if known else _sample_length(plan)
    audio_s = core_s = gpu_s = growth = 0.0
    anew = 0
    for job in plan.jobs:
        to_hear: dict[str, float] = {}
        for spec in job.request.features:
            lengths = {
                clip.clip_id: known.get(clip.clip_id, usual) for clip in job.computed(spec.name)
            }
            to_hear |= lengths
            rows = sum(lengths.values()) / spec.extractor().timing.hop_s
            if spec.device == "cpu":
                core_s += rows * rates.row_s(spec)
            else:
                gpu_s += rows * rates.row_s(spec)
            growth += rows * row_bytes(spec) * rates.packed.get(spec.name, 1.0)
            with suppress(FileNotFoundError):
                there = job.path(spec.name).stat().st_size
                anew = max(anew, there)
                if spec.name not in job.keep:
                    growth -= there  # the new shard takes its place
        audio_s += sum(to_hear.values())
        core_s += sum(to_hear.values()) * rates.options
    specs = {spec.name: spec for job in plan.jobs for spec in job.request.features}
    return Estimate(
        audio_s / 3600,
        core_s / 3600,
        gpu_s / 3600,
        max(0, math.ceil(growth)),
        anew,
        rates.learnt,
        tuple(name for name, spec in specs.items() if not rates.measured(spec)),
    )


def alignment_space(folder: DatasetDir, plan: AlignPlan, workers: Workers) -> Space:
    """Room that an alignment needs: audio and features are stored uncompressed."""
    audio = frames = replaced = anew = 0.0
    for job in plan.jobs:
        lengths = [clip.duration_s for clip in job.clips if clip.duration_s is not None]
        audio += 2 * sum(lengths) * job.header.audio_rate
        for feature in job.header.features.values():
            step = job.header.resolution_s
            frames += 4 * feature["dim"] * sum(math.ceil(seconds / step) for seconds in lengths)
        with suppress(FileNotFoundError):
            there = job.target.stat().st_size
            replaced += there
            anew = max(anew, there)
    replaced += sum(path.stat().st_size for path in plan.stale)  # which are removed first
    more = anew * max(1, workers.count) - replaced
    return Space.on_disk(
        folder.path, max(0, math.ceil(audio + frames + more)), max(0, math.ceil(audio + more))
    )


def _sample_length(plan: Plan) -> float:
    """Mean length of some of the clips, in seconds, as their files declare it."""
    clips = [clip for job in plan.jobs for clip in job.clips]
    found = []
    with closing(ChildProcess(length_s, timeout_s=3.0)) as look:
        for clip in clips[:: max(1, len(clips) // _SAMPLE)]:
            with suppress(ChildDied):
                found.append(look(clip))
    lengths = [length for length in found if length is not None]
    return sum(lengths) / len(lengths) if lengths else _CLIP_S


def _warm(accounts: Sequence[ShardResult]) -> Sequence[ShardResult]:
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


def _in_words(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"
