"""A job on a worker: refused if it was planned otherwise, clip by clip after a crash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import make_dataset
from loudness import LoudnessConfig

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.extractors.npy_folder import FolderConfig, complete
from featreg.extract.extractors.registry import FOLDER, FeatureSpec
from featreg.extract.extractors.waveform import WaveformConfig
from featreg.extract.pipeline.child_process import ChildProcess, StartError
from featreg.extract.pipeline.plan import Request, ShardJob, make_plan
from featreg.extract.pipeline.shard_job import extract_shard

AUDIO = FeatureSpec("audio", WaveformConfig())
LOUDNESS = FeatureSpec("loudness", LoudnessConfig(), source="loudness:Loudness")


def make_job(dataset: Dataset, work: Path, feature: FeatureSpec) -> ShardJob:
    """The only shard of a dataset."""
    folder = DatasetDir(work / dataset.name)
    folder.path.mkdir(parents=True)
    (job,) = make_plan(dataset, folder, Request((AUDIO, feature))).jobs
    return job


def test_a_worker_with_other_weights_than_planned_does_nothing(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "source", {"train": 1})
    job = make_job(dataset, tmp_path / "work", LOUDNESS)
    other = replace(job.headers["loudness"], weights_sha256="of a file that came since")
    with pytest.raises(FeatregError, match=r"loudness: worker .*the weights have changed"):
        extract_shard(replace(job, headers={**job.headers, "loudness": other}))
    assert not list(tmp_path.rglob("*.h5"))


def test_a_worker_without_a_gpu_blames_no_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    dataset = make_dataset(tmp_path / "source", {"train": 1})
    job = make_job(dataset, tmp_path / "work", replace(LOUDNESS, device="cuda"))
    with pytest.raises(FeatregError, match=r"no GPU found on worker .* or use --device cpu"):
        extract_shard(job)


def isolating_job(dataset: Dataset, work: Path, arrays: Path) -> ShardJob:
    """The same with a feature of .npy files, after a worker crashed."""
    config = complete("made", FolderConfig(arrays, 0.1))
    return replace(
        make_job(dataset, work, FeatureSpec("made", config, source=FOLDER)), isolate=True
    )


def test_clips_tried_alone_lack_the_features_they_would_lack_anyway(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "source", {"train": 3}, seconds=1.0)
    for clip in dataset.clips[:2]:
        np.save(tmp_path / f"{clip.clip_id}.npy", np.ones((10, 5)))
    job = isolating_job(dataset, tmp_path / "work", tmp_path)
    account = extract_shard(job)
    assert [(each.clip_id, each.stage) for each in account.failures] == [("train-2", "extract")]
    assert "train-2.npy" in account.failures[0].reason
    for feature, names in {"audio": range(3), "made": range(2)}.items():
        with native_shard(job.path(feature)) as shard:
            assert list(shard.clip_ids) == [f"train-{k}" for k in names]


def test_clips_that_cannot_be_tried_alone_are_not_reported_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "source", {"train": 1})
    np.save(tmp_path / "train-0.npy", np.ones((13, 5)))
    job = isolating_job(dataset, tmp_path / "work", tmp_path)

    def refuse(self: ChildProcess[..., object]) -> None:
        raise OSError("no process")

    monkeypatch.setattr(ChildProcess, "_start_once", refuse)
    with pytest.raises(StartError, match="no process"):
        extract_shard(job)
    assert not list(tmp_path.rglob("*.h5"))
