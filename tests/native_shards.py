"""Shards without audio: of planned jobs, and of a small dataset with two features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featreg.datasets.audio.decode import fingerprint
from featreg.datasets.base import Clip, Dataset, Split
from featreg.datasets.shards.native import Failure, NativeHeader, native_writer
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import AlignPlan, align_shard, plan_alignment
from featreg.extract.pipeline.plan import ShardJob

RATE = 100
HEADERS = {
    "audio": NativeHeader(
        "tones", "audio", 1, "int16", 1 / 32767, 0.0, FrameTiming(1 / RATE, 1 / RATE, 0.0),
        RATE, "", {"resampler": "soxr_hq"},
    ),
    "wide": NativeHeader(
        "tones", "wide", 3, "float32", 1.0, 0.0, FrameTiming(0.1, 0.2, 0.05), 8000, "net", {"k": 1}
    ),
    "deep": NativeHeader(
        "tones", "deep", 2, "float32", 1.0, 0.0, FrameTiming(0.2, 0.2, 0.1), 4000, "", {}
    ),
}  # fmt: skip
SECONDS = 1.5


def any_clip(folder: Path, name: str, split: Split = "train") -> Clip:
    """A clip of a file of a few bytes, which are no audio; its classes differ by name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(name.encode())
    label = np.array([len(name) % 2, 1], np.uint8)
    return Clip(name, folder / name, split, label, np.ones(2, np.uint8))


def write_job(job: ShardJob, failed: Mapping[str, str] | None = None) -> None:
    """Write a job's shards: two frames and 1.5 s for each clip, or its failure, by stage."""
    for spec in job.request.features:
        with native_writer(job.path(spec.name), job.headers[spec.name]) as shard:
            for clip in job.clips:
                made_from = spec.extractor().fingerprint(clip, fingerprint(clip))
                if stage := (failed or {}).get(clip.clip_id):
                    shard.fail(Failure(clip.clip_id, stage, "no", made_from))
                else:
                    frames = np.zeros((2, spec.extractor().dim), job.headers[spec.name].dtype)
                    shard.append(clip.clip_id, frames, 1.5, made_from)


def frames(name: str, clip_id: str, version: int = 0) -> np.ndarray:
    header = HEADERS[name]
    count = round(SECONDS / header.timing.hop_s)
    values = np.arange(count * header.dim).reshape(count, -1) + 1000 * ord(clip_id) + version
    return (values % 30000).astype(header.dtype)


class Work:
    """Clips a to e in native shards of two: of the audio and two features."""

    def __init__(self, folder: Path) -> None:
        self.folder = DatasetDir(folder / "tones")
        self.clips = [any_clip(folder / "source", name) for name in "abcde"]
        self.record(["audio", "wide", "deep"])

    def store_all(self) -> None:
        for name in HEADERS:
            for number, held in enumerate(("ab", "cd", "e")):
                self.store(name, number, held)

    def record(self, features: Sequence[str] = (), notes: tuple[str, ...] = ("Tones.",)) -> None:
        dataset = Dataset("tones", ("low", "high"), tuple(self.clips), notes=notes)
        self.folder.write_dataset(dataset, features)

    def store(
        self, name: str, number: int, clips: str, failed: str = "", version: int = 0, **changes: Any
    ) -> Path:
        path = self.folder.native(name) / f"{number:05d}.h5"
        with native_writer(path, replace(HEADERS[name], **changes)) as shard:
            for clip_id in clips:
                made_from = f"file {clip_id}" + (", scores" if name == "deep" else "")
                shard.append(clip_id, frames(name, clip_id, version), SECONDS, made_from)
            for clip_id in failed:
                shard.fail(Failure(clip_id, "decode", "no audio", ""))
        return path

    def plan(self, features: Sequence[str] = ("wide", "deep"), **options: Any) -> AlignPlan:
        values: dict[str, Any] = {"resolution_s": 0.1, "mode": "repeat"}
        return plan_alignment(self.folder, features, **(values | options))

    def align(self) -> list[str]:
        """Write what is planned; the names of the shards."""
        plan = self.plan()
        for job in plan.jobs:
            assert align_shard(job) == job.target.stat().st_size
        return [job.target.name for job in plan.jobs]
