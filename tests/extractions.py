"""Small extractions of tones, and what they wrote: for the tests of the pipeline's parts."""

from __future__ import annotations

from pathlib import Path

import h5py
from loudness import LoudnessConfig

from featreg.datasets.base import Dataset
from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.native_index import read_native_index
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.extractors.registry import FeatureSpec
from featreg.extract.extractors.waveform import WaveformConfig
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.plan import Request, make_plan
from featreg.extract.pipeline.run import Summary, run_extraction

AUDIO = FeatureSpec("audio", WaveformConfig())
LOUDNESS = FeatureSpec("loudness", LoudnessConfig(), source="loudness:Loudness")
REQUEST = Request((AUDIO, LOUDNESS), shard_clips=3)


def extract(
    dataset: Dataset,
    work: Path,
    request: Request = REQUEST,
    workers: int = 0,
    limit: int | None = None,
    retry_failed: bool = False,
) -> Summary:
    folder = DatasetDir(work / dataset.name)
    plan = make_plan(dataset, folder, request, limit=limit, retry_failed=retry_failed)
    names = [spec.name for spec in request.features]
    return run_extraction(dataset, folder, names, plan, Workers(workers, 1))


def align(work: Path, resolution_s: float = 0.1, names: tuple[str, ...] = ()) -> list[Path]:
    plan = plan_alignment(DatasetDir(work / "tones"), names, resolution_s, "repeat")
    for path in plan.stale:
        path.unlink()
    for job in plan.jobs:
        align_shard(job)
    return [job.target for job in plan.jobs]


def contents(work: Path) -> dict[str, dict[str, object]]:
    """Every dataset of every shard, byte for byte, and the attributes."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted(work.rglob("*.h5")):
        with h5py.File(path) as file:
            held: dict[str, object] = dict(file.attrs)
            file.visititems(
                lambda name, item, held=held: (
                    held.update({name: item[()].tobytes()})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
        found[str(path.relative_to(work))] = held
    return found


def clips_of(work: Path) -> dict[tuple[str, str], tuple[object, ...]]:
    """What the native shards hold of each feature and clip, whatever shard it is in."""
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for folder in sorted(work.glob("*/native/*")):
        for clip_id, held in read_native_index(folder).clips().items():
            if held.failure is not None:
                found[folder.name, clip_id] = (held.failure,)
                continue
            with native_shard(held.path) as shard:
                values = shard.stored(clip_id).tobytes()
            found[folder.name, clip_id] = (values, held.duration_s, held.fingerprint)
    return found
