"""Extraction and alignment end to end: numbers, accounts, resuming, bad clips."""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from kit import make_clip, make_dataset, make_kit, tone, write
from loudness import Loudness, LoudnessConfig

from featreg.datasets.aligned import read_index
from featreg.datasets.audio import decode, resample
from featreg.datasets.base import Dataset, FeatregError, UsageError
from featreg.datasets.clock import Clock
from featreg.datasets.native import NativeHeader, native_shard, native_writer
from featreg.datasets.workdir import DatasetDir
from featreg.extract.align import Mode
from featreg.extract.cluster import Workers
from featreg.extract.combine import align_shard, plan_alignment
from featreg.extract.dry_run import describe
from featreg.extract.estimate import alignment_space, estimate
from featreg.extract.features import FeatureSpec
from featreg.extract.pipeline import extract_shard
from featreg.extract.plan import Request, make_plan
from featreg.extract.run import Summary, run_extraction
from featreg.extract.verify import faults
from featreg.extract.waveform import WaveformConfig

AUDIO = FeatureSpec("audio", WaveformConfig())
LOUDNESS = FeatureSpec("loudness", LoudnessConfig(), source="loudness:Loudness")
ONE = Workers(1, 1)
REQUEST = Request((AUDIO, LOUDNESS), shard_clips=3)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "source", {"train": 7, "valid": 2, "test": 3})


def extract(
    dataset: Dataset,
    work: Path,
    request: Request = REQUEST,
    workers: int = 0,
    limit: int | None = None,
) -> Summary:
    folder = DatasetDir(work / dataset.name)
    plan = make_plan(dataset, folder, request, limit=limit)
    names = [spec.name for spec in request.features]
    return run_extraction(dataset, folder, names, plan, Workers(workers, 1))


def align(work: Path, resolution_s: float = 0.1, names: tuple[str, ...] = ()) -> list[Path]:
    plan = plan_alignment(DatasetDir(work / "tones"), names, resolution_s, "repeat")
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


def test_every_row_is_what_the_extractor_gives_for_that_clip_alone(
    dataset: Dataset, tmp_path: Path
) -> None:
    summary = extract(dataset, tmp_path)
    assert (summary.clips, summary.failed, summary.new_clips) == (12, 0, 12)
    for clip in dataset.clips:
        signal, rate = decode(clip)
        heard = resample(signal, rate, 16000)
        paths = (tmp_path / "tones" / "native" / "audio").glob(f"{clip.split}-*.h5")
        for path in paths:
            with native_shard(path) as shard:
                if clip.clip_id not in shard.clip_ids:
                    continue
                np.testing.assert_array_equal(
                    shard.stored(clip.clip_id)[:, 0],
                    np.rint(np.clip(heard, -1, 1) * 32767).astype(np.int16),
                )
                assert shard.durations[clip.clip_id] == len(signal) / rate
                break
        else:
            pytest.fail(f"{clip.clip_id} is in no shard")
        loudness = Loudness(LoudnessConfig(), {}).extract(resample(signal, rate, 8000))
        path = next(
            p
            for p in (tmp_path / "tones" / "native" / "loudness").glob(f"{clip.split}-*.h5")
            if p.name == path.name
        )
        with native_shard(path) as shard:
            np.testing.assert_array_equal(shard.values(clip.clip_id), loudness)


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
    assert {reason for job in plan.jobs for reason in job.reasons} == {"gain was 1.0, now 2.0"}
    assert len(plan.jobs) == 5


def test_a_changed_file_redoes_its_shard_alone(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    write(dataset.clips[4].path, tone(2.0, 22050, seed=99), 22050)
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), REQUEST)
    assert [(job.split, job.index) for job in plan.jobs] == [("train", 1)]
    assert "train-4 among them" in plan.jobs[0].reasons[0]


def test_a_trial_run_does_not_undo_a_whole_one(dataset: Dataset, tmp_path: Path) -> None:
    assert extract(dataset, tmp_path, limit=2).clips == 6
    assert extract(dataset, tmp_path).new_clips > 0
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


def test_aligned_shards_hold_every_feature_label_and_sample(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    paths = align(tmp_path)
    assert len(paths) == 5
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
    for name, clock, dim, dtype in (
        ("wide", Clock(0.1, 1.0, 0.0), 512, "float32"),
        ("audio", Clock(1 / 16000, 1 / 16000, 0.0), 1, "int16"),
    ):
        header = NativeHeader("long", name, dim, dtype, 1.0, 0.0, clock, 16000, "", {})
        with native_writer(folder.native(name) / "train-00000.h5", header) as shard:
            rows = np.zeros((round(seconds / clock.hop_s), dim), dtype)
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
    assert {path.name for path in plan.stale} == {
        "train-00001.h5",
        "train-00002.h5",
        "valid-00000.h5",
        "test-00000.h5",
    }


def test_half_changed_features_are_not_mixed(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    extract(dataset, tmp_path, louder, limit=2)
    with pytest.raises(FeatregError, match=r"gain is .* redoes what differs"):
        plan_alignment(DatasetDir(tmp_path / "tones"), (), 0.1, "repeat")


def test_what_was_not_extracted_cannot_be_aligned(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    with pytest.raises(FeatregError, match="run `prep extract --dataset tones"):
        plan_alignment(folder, (), 0.1, "repeat")
    extract(dataset, tmp_path)
    with pytest.raises(FeatregError, match=r"no native shards of 'vggish' \(there is audio, loud"):
        plan_alignment(folder, ("vggish",), 0.1, "repeat")
    with pytest.raises(UsageError, match="--resolution 0: expected seconds above 0"):
        plan_alignment(folder, (), 0, "repeat")
    for endless in (math.nan, math.inf, 1e305):
        with pytest.raises(UsageError, match=r"--resolution .* expected seconds above 0"):
            plan_alignment(folder, (), endless, "repeat")
    with pytest.raises(UsageError, match="whole number of samples"):
        plan_alignment(folder, (), 1 / 30000, "repeat")


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


def test_the_accounts_say_where_the_time_went(dataset: Dataset, tmp_path: Path) -> None:
    summary = extract(dataset, tmp_path)
    assert list(summary.stages) == ["read", "decode", "resample", "network", "write"]
    assert all(seconds > 0 for seconds in summary.stages.values())
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert summary.heard_s == pytest.approx(seconds, abs=1e-2)
    held = [path.stat().st_size for path in (tmp_path / "tones").rglob("*.h5")]
    assert summary.written == sum(held)
    # No Python with numpy is smaller, and no test machine's larger.
    assert all(3e7 < peak < 1e11 for peak in summary.peak_bytes.values())


def test_what_a_run_took_is_what_the_next_one_expects(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    plan = make_plan(dataset, folder, REQUEST)
    before = estimate(dataset, folder, plan)
    assert not before.learnt
    # Lengths as the files declare them: 16 kHz audio of 2 bytes, and 8 bytes each half second.
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert before.bytes == pytest.approx(seconds * (32000 + 16), rel=1e-3)
    summary = extract(dataset, tmp_path)
    for path in tmp_path.rglob("*.h5"):
        path.unlink()
    after = estimate(dataset, folder, plan)
    assert after.learnt
    assert after.audio_h * 3600 == pytest.approx(summary.heard_s, rel=1e-3)
    assert after.bytes == pytest.approx(summary.written, rel=0.03)
    spent = sum(seconds for stage, seconds in summary.stages.items() if stage != "write")
    # A clip of 1.3 s has two whole rows of half a second, not 2.6.
    assert after.core_h * 3600 == pytest.approx(spent, rel=0.4)
    extract(dataset, tmp_path)
    nothing = estimate(dataset, folder, make_plan(dataset, folder, REQUEST))
    assert (nothing.bytes, nothing.core_h) == (0, 0)


def test_a_run_that_the_disk_cannot_hold_does_not_start(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DatasetDir(tmp_path / "tones")
    needed = estimate(dataset, folder, make_plan(dataset, folder, REQUEST))
    needed.space(folder, ONE).check()
    monkeypatch.setattr("featreg.extract.space.free_bytes", lambda path: needed.bytes // 3)
    words = r"tones: disk: about 0\.6 MB needed, 0\.2 MB free: does not suffice; free some"
    with pytest.raises(FeatregError, match=words):
        needed.space(folder, ONE).check()


def test_what_is_there_already_is_not_expected_again(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    written = extract(dataset, tmp_path).written
    # A feature that is done anew takes the place of the old one.
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    anew = estimate(dataset, folder, make_plan(dataset, folder, louder))
    assert anew.audio_h > 0
    assert anew.bytes < 0.3 * sum(path.stat().st_size for path in folder.path.rglob("loudness/*"))
    write(dataset.clips[4].path, tone(1.7, 22050, seed=99), 22050)  # as long as before
    plan = make_plan(dataset, folder, REQUEST)
    assert [clip.clip_id for clip in plan.jobs[0].computed("loudness")] == ["train-4"]
    one = estimate(dataset, folder, plan)
    assert one.audio_h * 3600 == pytest.approx(1.7, abs=1e-3)
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert one.bytes == pytest.approx(written * 1.7 / seconds, rel=0.05)
    assert one.anew == plan.jobs[0].path("audio").stat().st_size
    assert "audio: 1 shards to do (train-00001.h5), 1 clips: 1 clips are new or" in describe(plan)


@pytest.mark.parametrize("mode", ["repeat", "area", "linear"])
def test_an_alignment_takes_the_room_that_was_told(
    mode: Mode, dataset: Dataset, tmp_path: Path
) -> None:
    folder = DatasetDir(tmp_path / "tones")
    extract(dataset, tmp_path)
    plan = plan_alignment(folder, (), 0.1, mode)
    space = alignment_space(folder, plan, ONE)
    written = sum(align_shard(job) for job in plan.jobs)
    # A shard's frame and its last chunk of audio, half empty, are much beside such small ones.
    assert space.least < space.likely < written < space.likely + 64e3 * len(plan.jobs)
    assert alignment_space(folder, plan_alignment(folder, (), 0.1, mode), ONE).likely == 0


def test_a_release_that_changes_numbers_redoes_what_it_touches(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(dataset, tmp_path)
    monkeypatch.setattr(type(LOUDNESS.extractor()), "revision", 2)
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), REQUEST)
    assert {spec.name for job in plan.jobs for spec in job.request.features} == {"loudness"}
    assert describe(plan).splitlines() == [
        "loudness: 5 shards to do (train-00000.h5 and so on), 12 clips: revision was 1, now 2",
        "5 shards to do, 5 done",
    ]


def test_a_folder_that_a_worker_does_not_see_ends_the_run(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    (job, *_) = make_plan(dataset, folder, REQUEST).jobs
    with pytest.raises(FeatregError, match=r"no such folder on .* under the same paths"):
        extract_shard(job)
