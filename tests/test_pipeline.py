"""Extraction end to end: numbers, accounts, resuming, bad clips."""

from __future__ import annotations

import errno
import fcntl
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extractions import AUDIO, LOUDNESS, REQUEST, align, contents, extract
from kit import make_clip, make_dataset, make_kit, tone, write
from loudness import Loudness, LoudnessConfig

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.native_index import read_native_index
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import plan_alignment
from featreg.extract.pipeline.plan import make_plan
from featreg.extract.pipeline.shard_job import extract_shard

pytest_plugins = ("extraction_fixtures",)


def test_every_row_is_what_the_extractor_gives_for_that_clip_alone(
    dataset: Dataset, tmp_path: Path
) -> None:
    summary = extract(dataset, tmp_path)
    assert (summary.clips, summary.failed, summary.new_clips) == (12, 0, 12)
    audio, loudness = (
        read_native_index(tmp_path / "tones" / "native" / name).clips()
        for name in ("audio", "loudness")
    )
    for clip in dataset.clips:
        signal, rate = decode(clip)
        heard = np.rint(np.clip(resample(signal, rate, 16000), -1, 1) * 32767).astype(np.int16)
        with native_shard(audio[clip.clip_id].path) as shard:
            np.testing.assert_array_equal(shard.stored(clip.clip_id)[:, 0], heard)
            assert shard.durations[clip.clip_id] == len(signal) / rate
        alone = Loudness(LoudnessConfig(), {}).extract(resample(signal, rate, 8000))
        with native_shard(loudness[clip.clip_id].path) as shard:
            np.testing.assert_array_equal(shard.values(clip.clip_id), alone)


def test_a_second_run_does_nothing_and_changes_no_file(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    align(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    again = extract(dataset, tmp_path)
    assert (again.clips, again.new_clips) == (12, 0)
    assert align(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == times


def test_a_changed_setting_redoes_what_it_touches_and_says_why(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), louder)
    assert {spec.name for job in plan.jobs for spec in job.request.features} == {"loudness"}
    assert plan.reasons == {"loudness": {"gain was 1.0, now 2.0": 12}}
    assert len(plan.jobs) == 4


def test_a_changed_file_alone_is_computed_again(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    write(dataset.clips[4].path, tone(2.0, 22050, seed=99), 22050)
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), REQUEST)
    (job,) = plan.jobs
    assert [clip.clip_id for clip in job.clips] == ["train-4"]
    assert job.numbers == {"audio": 4, "loudness": 4}


def test_a_trial_run_does_not_undo_a_whole_one(dataset: Dataset, tmp_path: Path) -> None:
    assert extract(dataset, tmp_path, limit=2).clips == 6
    assert extract(dataset, tmp_path).new_clips == 6
    assert extract(dataset, tmp_path, limit=2).new_clips == 0
    assert plan_alignment(DatasetDir(tmp_path / "tones"), (), 0.1, "repeat").clips == 12


def test_one_worker_or_many_give_equal_shards(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "source", {"train": 5, "test": 2})
    request = replace(REQUEST, shard_clips=2)
    extract(dataset, tmp_path / "one", request)
    summary = extract(dataset, tmp_path / "two", request, workers=2)
    assert summary.clips == 7
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_bad_clips_are_named_and_the_others_unharmed(tmp_path: Path) -> None:
    good, bad = make_kit(tmp_path / "source")
    clips = [make_clip(path, name) for name, path in {**good, **bad}.items()]
    dataset = Dataset("tones", ("low", "high"), tuple(sorted(clips, key=lambda c: c.clip_id)))
    summary = extract(dataset, tmp_path)
    assert (summary.clips, summary.failed) == (len(good), len(bad))
    listed = pd.read_csv(tmp_path / "tones" / "failures.csv", keep_default_na=False)
    assert list(listed.columns) == ["clip_id", "stage", "reason"]
    assert set(listed.clip_id) == set(bad)
    alone = Dataset("tones", dataset.classes, tuple(make_clip(good[n], n) for n in good))
    extract(alone, tmp_path / "alone")
    for name in good:
        rows = []
        for work in (tmp_path, tmp_path / "alone"):
            for path in (work / "tones" / "native" / "loudness").glob("*.h5"):
                with native_shard(path) as shard:
                    if name in shard.clip_ids:
                        rows.append(shard.stored(name))
        np.testing.assert_array_equal(*rows)
    # A rerun redoes nothing, and still accounts for every clip.
    again = extract(dataset, tmp_path)
    assert (again.clips, again.failed, again.new_clips) == (len(good), len(bad), 0)
    assert len(pd.read_csv(tmp_path / "tones" / "failures.csv")) == len(bad)


def test_silent_clips_are_kept_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "silent.wav", np.zeros((16000, 1), np.float32), 16000)
    dataset = Dataset("tones", ("low", "high"), (make_clip(path),))
    assert extract(dataset, tmp_path).failed == 1
    assert extract(dataset, tmp_path, replace(REQUEST, keep_silent=True)).failed == 0


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    with folder.exclusive(), pytest.raises(FeatregError, match="another prep command"):  # noqa: SIM117
        with folder.exclusive():
            pass


def test_a_mount_without_locks_is_worked_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(logging.getLogger("featreg"), "propagate", True)
    with DatasetDir(tmp_path / "tones").exclusive():
        pass
    assert "no locks (No locks available)" in caplog.text


def test_clips_that_their_dataset_knows_to_be_bad_are_counted_apart(
    dataset: Dataset, tmp_path: Path
) -> None:
    known = replace(dataset, known_bad=("35644", "55753"))
    summary = extract(known, tmp_path)
    assert (summary.clips, summary.failed, summary.known_bad) == (12, 0, 2)
    assert "12 clips extracted, 0 failed, of 12; 2 more are known to be unusable" in str(summary)
    listed = pd.read_csv(tmp_path / "tones" / "failures.csv", dtype=str)
    assert set(listed.stage) == {"published"}
    assert set(listed.clip_id) == {"35644", "55753"}


def test_a_trial_run_forgets_neither_failures_nor_lengths(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "source", {"train": 4})
    dataset.clips[3].path.unlink()
    assert extract(dataset, tmp_path).failed == 1
    folder = DatasetDir(tmp_path / "tones")
    lengths = folder.read_durations()
    assert set(lengths) == {"train-0", "train-1", "train-2"}
    assert extract(dataset, tmp_path, limit=2).failed == 0
    assert list(pd.read_csv(folder.failures_csv).clip_id) == ["train-3"]
    assert folder.read_durations() == lengths


def test_a_release_that_changes_numbers_redoes_what_it_touches(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(dataset, tmp_path)
    monkeypatch.setattr(type(LOUDNESS.extractor()), "revision", 2)
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), REQUEST)
    assert plan.reasons == {"loudness": {"revision was 1, now 2": 12}}


def test_a_folder_that_a_worker_does_not_see_ends_the_run(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    (job, *_) = make_plan(dataset, folder, REQUEST).jobs
    with pytest.raises(FeatregError, match=r"no such folder on .* the same paths"):
        extract_shard(job)


def test_the_summary_says_where_the_time_went(dataset: Dataset, tmp_path: Path) -> None:
    summary = extract(dataset, tmp_path)
    assert list(summary.stages) == ["read", "decode", "resample", "network", "write"]
    assert all(seconds > 0 for seconds in summary.stages.values())
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert summary.audio_s == pytest.approx(seconds, abs=1e-2)
    held = [path.stat().st_size for path in (tmp_path / "tones").rglob("*.h5")]
    assert summary.written == sum(held)
    # No Python with numpy is smaller, and no test machine's larger.
    assert 3e7 < summary.peak_bytes < 1e11
