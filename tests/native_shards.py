"""Native shards without audio: what a planned job would write, for tests of what is planned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featreg.datasets.audio.decode import fingerprint
from featreg.datasets.base import Clip, Split
from featreg.datasets.shards.native import Failure, native_writer
from featreg.extract.pipeline.plan import ShardJob


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
