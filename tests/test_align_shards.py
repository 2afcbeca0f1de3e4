"""Native shards to aligned ones: every feature, label and sample, in bounded memory."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from extractions import AUDIO, LOUDNESS, REQUEST, align, extract
from kit import make_clip
from loudness import Loudness, LoudnessConfig

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.base import Dataset, FeatregError, UsageError
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.native import NativeHeader, native_writer
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.alignment.resample_frames import Mode
from featreg.extract.inspection.verify import faults

pytest_plugins = ("extraction_fixtures",)


def test_aligned_shards_hold_every_feature_label_and_sample(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    paths = align(tmp_path)
    assert len(paths) == 4
    by_id = {clip.clip_id: clip for clip in dataset.clips}
    seen = []
    for path in paths:
        index = read_index(path)
        assert index.header.features["loudness"]["columns"] == [0, 2]
        assert index.header.features["loudness"]["settings"]["gain"] == 1.0
        assert index.header.audio_settings["resampler"] == "soxr_hq"
        with h5py.File(path) as file:
            for k, clip_id in enumerate(index.clip_id):
                clip = by_id[clip_id]
                seen.append(clip_id)
                assert index.split[k] == clip.split
                np.testing.assert_array_equal(index.label[k], clip.label)
                signal, rate = decode(clip)
                assert index.duration_s[k] == len(signal) / rate
                first, last = index.offset[k : k + 2]
                native = Loudness(LoudnessConfig(), {}).extract(resample(signal, rate, 8000))
                held = np.minimum(np.arange(last - first) // 5, len(native) - 1)
                np.testing.assert_array_equal(file["features/loudness"][first:last], native[held])
                assert last - first == np.ceil(len(signal) / rate / 0.1 - 1e-6)
    assert sorted(seen) == sorted(by_id)


@pytest.mark.parametrize("mode", ["repeat", "area", "linear"])
def test_an_hour_is_aligned_in_little_memory(mode: Mode, tmp_path: Path) -> None:
    folder, seconds = DatasetDir(tmp_path / "long"), 3600.0
    clip = make_clip(tmp_path / "hour.wav")
    folder.write_dataset(Dataset("long", ("low", "high"), (clip,)), ["wide"])
    for name, timing, dim, dtype in (
        ("wide", FrameTiming(0.1, 1.0, 0.0), 512, "float32"),
        ("audio", FrameTiming(1 / 16000, 1 / 16000, 0.0), 1, "int16"),
    ):
        header = NativeHeader("long", name, dim, dtype, 1.0, 0.0, timing, 16000, "", {})
        with native_writer(folder.native(name) / "00000.h5", header) as shard:
            rows = np.zeros((round(seconds / timing.hop_s), dim), dtype)
            shard.append("hour", rows, seconds, "")
    (job,) = plan_alignment(folder, ("wide",), 0.1, mode).jobs
    tracemalloc.start()
    align_shard(job)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The hour's rows are 74 MB and its audio 115 MB; `area` adds up in float64.
    assert peak < 60e6
    assert faults(job.target) == []


def test_shards_that_belong_to_no_clip_any_more_are_named(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    align(tmp_path)
    fewer = Dataset("tones", dataset.classes, dataset.clips[:3])
    extract(fewer, tmp_path)
    plan = plan_alignment(DatasetDir(tmp_path / "tones"), (), 0.1, "repeat")
    assert {path.name for path in plan.stale} == {"00001.h5", "00002.h5", "00003.h5"}


def test_half_changed_features_are_not_mixed(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    extract(dataset, tmp_path, louder, limit=2)
    with pytest.raises(FeatregError, match=r"gain was 1\.0, now 2\.0"):
        plan_alignment(DatasetDir(tmp_path / "tones"), (), 0.1, "repeat")


def test_what_was_not_extracted_cannot_be_aligned(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    with pytest.raises(FeatregError, match="run `prep extract --dataset tones"):
        plan_alignment(folder, (), 0.1, "repeat")
    extract(dataset, tmp_path)
    with pytest.raises(FeatregError, match=r"'vggish' \(extracted features: audio, loud"):
        plan_alignment(folder, ("vggish",), 0.1, "repeat")
    with pytest.raises(UsageError, match="--resolution 0: expected seconds above 0"):
        plan_alignment(folder, (), 0, "repeat")
    for endless in (math.nan, math.inf, 1e305):
        with pytest.raises(UsageError, match=r"--resolution .* expected seconds above 0"):
            plan_alignment(folder, (), endless, "repeat")
    with pytest.raises(UsageError, match="whole number of samples"):
        plan_alignment(folder, (), 1 / 30000, "repeat")
