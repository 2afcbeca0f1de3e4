"""Clips, files or shard sizes that change: what is redone, and that no old row is aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from kit import make_dataset, tone, write
from loudness import Loudness, LoudnessConfig
from test_pipeline import AUDIO, LOUDNESS, REQUEST, align, contents, extract

from featreg.datasets.audio.decode import REVISION, decode, resample
from featreg.datasets.base import Clip, ClipError, Dataset, FeatregError
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import plan_alignment
from featreg.extract.extractors.base import Signal
from featreg.extract.pipeline.dry_run import describe
from featreg.extract.pipeline.plan import make_plan


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "source", {"train": 6, "valid": 2})


def with_clips(dataset: Dataset, clips: Sequence[Clip]) -> Dataset:
    return replace(dataset, clips=tuple(clips))


def edit(clip: Clip) -> None:
    write(clip.path, tone(2.0, 22050, seed=99), 22050)


def native(work: Path) -> set[str]:
    return {f"{path.parent.name}/{path.stem}" for path in (work / "tones/native").rglob("*.h5")}


def assert_aligned_as_heard(dataset: Dataset, work: Path) -> None:
    """Every clip is in the aligned shards once, with the audio that its file holds now."""
    align(work)
    for path in plan_alignment(DatasetDir(work / "tones"), (), 0.1, "repeat").stale:
        path.unlink()
    seen = []
    for path in (work / "tones" / "aligned").rglob("*.h5"):
        index = read_index(path)
        with h5py.File(path) as file:
            for k, clip_id in enumerate(index.clip_id):
                (clip,) = [clip for clip in dataset.clips if clip.clip_id == clip_id]
                signal, rate = decode(clip)
                heard = np.rint(np.clip(resample(signal, rate, 16000), -1, 1) * 32767)
                first, last = index.audio_offset[k : k + 2]
                np.testing.assert_array_equal(file["audio"][first:last], heard, clip_id)
                seen.append(clip_id)
    assert sorted(seen) == sorted(clip.clip_id for clip in dataset.clips)


def test_of_a_shard_with_a_changed_file_that_clip_alone_is_done_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path / "work")
    edit(dataset.clips[4])
    summary = extract(dataset, tmp_path / "work")
    assert summary.new_clips == 1
    assert summary.audio_s == pytest.approx(2.0)
    # 16 kHz of 2 bytes, and the headers; the shard's other two clips are not counted.
    assert 64_000 < summary.written < 100_000
    extract(dataset, tmp_path / "anew")
    assert contents(tmp_path / "work") == contents(tmp_path / "anew")


@pytest.mark.parametrize(("before", "after"), [(2, 6), (6, 2)])
def test_another_shard_size_leaves_no_old_rows(
    before: int, after: int, dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path, replace(REQUEST, shard_clips=before))
    edit(dataset.clips[5])
    request = replace(REQUEST, shard_clips=after)
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), request)
    removed = "audio: 2 shards to remove (train-00001.h5 and so on): no clip belongs there any more"
    assert (removed in describe(plan).splitlines()) == (before < after)
    extract(dataset, tmp_path, request)
    assert_aligned_as_heard(dataset, tmp_path)
    assert extract(dataset, tmp_path, request).new_clips == 0


def test_a_clip_that_moves_to_another_split_takes_its_rows_along(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    moved = replace(dataset.clips[7], split="train")
    now = with_clips(dataset, [*dataset.clips[:7], moved])
    extract(now, tmp_path)
    edit(moved)
    extract(now, tmp_path)
    assert_aligned_as_heard(now, tmp_path)


def test_shards_of_clips_that_left_are_removed_and_others_align(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    fewer = with_clips(dataset, dataset.clips[:6])  # no validation split any more
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    extract(fewer, tmp_path, louder)
    assert native(tmp_path) == {
        f"{feature}/train-0000{k}" for feature in ("audio", "loudness") for k in (0, 1)
    }
    assert_aligned_as_heard(fewer, tmp_path)


def test_a_release_that_hears_or_aligns_otherwise_redoes_what_it_touches(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(dataset, tmp_path)
    assert len(align(tmp_path)) == 3
    monkeypatch.setattr("featreg.extract.alignment.align_shards.REVISION", 2)
    assert len(align(tmp_path)) == 3
    assert align(tmp_path) == []
    monkeypatch.setattr("featreg.datasets.audio.decode.REVISION", 1000)
    jobs = make_plan(dataset, DatasetDir(tmp_path / "tones"), REQUEST).jobs
    assert {reason for job in jobs for reason in job.reasons} == {
        f"audio_revision was {REVISION}, now 1000"
    }
    assert len(jobs) == 3


def test_failures_of_a_feature_are_listed_until_it_is_mended(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: Loudness, clip_id: str, signal: Signal) -> Signal:
        if clip_id == "train-1":
            raise ClipError("extract", "too quiet")
        return signal

    monkeypatch.setattr(type(LOUDNESS.extractor()), "prepare", prepare)
    listed = DatasetDir(tmp_path / "tones").failures_csv
    for request in (REQUEST, replace(REQUEST, features=(AUDIO,))):
        extract(dataset, tmp_path, request)
        assert listed.read_text() == "clip_id,stage,reason\ntrain-1,extract,too quiet\n"
    monkeypatch.undo()
    edit(dataset.clips[1])
    extract(dataset, tmp_path)
    assert listed.read_text() == "clip_id,stage,reason\n"


def test_a_run_of_a_part_removes_nothing_and_its_doubles_are_refused(
    dataset: Dataset, tmp_path: Path
) -> None:
    folder, small = DatasetDir(tmp_path / "tones"), replace(REQUEST, shard_clips=1)
    extract(dataset, tmp_path, small)
    before = native(tmp_path)
    assert make_plan(dataset, folder, REQUEST, splits=["valid"]).stale == ()
    extract(dataset, tmp_path, limit=2)
    assert native(tmp_path) == before
    with pytest.raises(FeatregError, match=r"train-1 is in two shards, .*train-00000.h5 and .*001"):
        align(tmp_path)
    for request in (small, REQUEST):  # whatever whole run comes next
        extract(dataset, tmp_path, request)
        assert_aligned_as_heard(dataset, tmp_path)


def test_what_lies_beyond_a_limit_outlives_a_shard_that_is_redone(
    dataset: Dataset, tmp_path: Path
) -> None:
    lost = dataset.clips[2]
    sound = lost.path.read_bytes()
    lost.path.write_bytes(b"")
    request = replace(REQUEST, shard_clips=4)
    extract(dataset, tmp_path / "work", request)
    edit(dataset.clips[0])
    assert extract(dataset, tmp_path / "work", request, limit=2).new_clips == 1
    for path in (tmp_path / "work/tones/native").rglob("train-00000.h5"):
        with native_shard(path) as shard:
            assert set(shard.clip_ids) == {"train-0", "train-1", "train-3"}
            assert [failure.clip_id for failure in shard.failures] == ["train-2"]
    lost.path.write_bytes(sound)
    assert extract(dataset, tmp_path / "work", request).new_clips == 1
    assert_aligned_as_heard(dataset, tmp_path / "work")
    # With other settings none of the shard's rows can stay.
    louder = replace(request, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    extract(dataset, tmp_path / "work", louder, limit=2)
    with native_shard(tmp_path / "work/tones/native/loudness/train-00000.h5") as shard:
        assert shard.clip_ids == ["train-0", "train-1"]


def test_rows_of_a_file_that_changed_since_are_not_set_beside_its_audio(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    edit(dataset.clips[1])
    extract(dataset, tmp_path, replace(REQUEST, features=(AUDIO,)))
    with pytest.raises(FeatregError, match=r"of 1 clips, train-1 among them, .*features loudness"):
        align(tmp_path)
    extract(dataset, tmp_path)
    assert_aligned_as_heard(dataset, tmp_path)
