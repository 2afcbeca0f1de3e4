"""Clips, labels, splits or files that change: what is computed again, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from extractions import AUDIO, LOUDNESS, REQUEST, align, clips_of, extract
from kit import make_clip, make_dataset, tone, write
from loudness import Loudness, LoudnessConfig

from featreg.datasets.audio.decode import REVISION, decode, resample
from featreg.datasets.base import Clip, ClipError, Dataset, FeatregError
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import plan_alignment
from featreg.extract.extractors.base import Array, Signal
from featreg.extract.pipeline.plan import make_plan


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "source", {"train": 6, "valid": 2})


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Clips whose loudness is computed, in order; no clip without a call of the network."""
    clips: list[str] = []
    network = Loudness.network

    def prepare(self: Loudness, clip_id: str, signal: Signal) -> Signal:
        clips.append(clip_id)
        return signal

    def count(self: Loudness, inputs: Array) -> Array:
        assert clips
        return network(self, inputs)

    monkeypatch.setattr(type(LOUDNESS.extractor()), "prepare", prepare)
    monkeypatch.setattr(type(LOUDNESS.extractor()), "network", count)
    return clips


def with_clips(dataset: Dataset, clips: Sequence[Clip]) -> Dataset:
    return replace(dataset, clips=tuple(clips))


def edit(clip: Clip) -> None:
    write(clip.path, tone(2.0, 22050, seed=99), 22050)


def native(work: Path) -> set[str]:
    return {f"{path.parent.name}/{path.stem}" for path in (work / "tones/native").rglob("*.h5")}


def assert_aligned_as_decoded(dataset: Dataset, work: Path) -> None:
    """Every clip is in the aligned shards once, with its audio and annotation as they are now."""
    align(work)
    seen = []
    for path in (work / "tones" / "aligned").rglob("*.h5"):
        index = read_index(path)
        with h5py.File(path) as file:
            for k, clip_id in enumerate(index.clip_id):
                (clip,) = [clip for clip in dataset.clips if clip.clip_id == clip_id]
                signal, rate = decode(clip)
                sound = np.rint(np.clip(resample(signal, rate, 16000), -1, 1) * 32767)
                first, last = index.audio_offset[k : k + 2]
                np.testing.assert_array_equal(file["audio"][first:last], sound, clip_id)
                np.testing.assert_array_equal(index.label[k], clip.label)
                np.testing.assert_array_equal(index.label_mask[k], clip.label_mask)
                assert index.split[k] == clip.split
                seen.append(clip_id)
    assert sorted(seen) == sorted(clip.clip_id for clip in dataset.clips)


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0, 1], np.uint8)},
        {"label_mask": np.array([1, 0], np.uint8)},
        {"split": "test"},
        {"fold": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_annotation_computes_nothing_and_rewrites_the_aligned_shard(
    change: dict[str, object], dataset: Dataset, tmp_path: Path, computed: list[str]
) -> None:
    extract(dataset, tmp_path)
    assert len(align(tmp_path)) == 3
    assert len(computed) == 8
    changed = replace(dataset.clips[4], **change)  # type: ignore[arg-type]
    now = with_clips(dataset, [*dataset.clips[:4], changed, *dataset.clips[5:]])
    before = native(tmp_path)
    assert extract(now, tmp_path).new_clips == 0
    assert len(computed) == 8
    assert native(tmp_path) == before
    assert [path.name for path in align(tmp_path)] == ["00001.h5"]
    assert_aligned_as_decoded(now, tmp_path)
    assert align(tmp_path) == []


def test_clips_in_another_order_or_in_other_splits_are_not_computed_again(
    dataset: Dataset, tmp_path: Path, computed: list[str]
) -> None:
    extract(dataset, tmp_path)
    splits = ("test", "train", "valid")
    now = with_clips(
        dataset, [replace(c, split=splits[k % 3]) for k, c in enumerate(dataset.clips[::-1])]
    )
    assert extract(now, tmp_path).new_clips == 0
    assert len(computed) == 8
    assert_aligned_as_decoded(now, tmp_path)


def test_of_added_clips_those_alone_are_computed(
    dataset: Dataset, tmp_path: Path, computed: list[str]
) -> None:
    few = with_clips(dataset, [dataset.clips[k] for k in (1, 4, 7)])
    extract(few, tmp_path / "work")
    assert computed == ["train-1", "train-4", "valid-1"]
    assert extract(dataset, tmp_path / "work").new_clips == 5
    assert computed[3:] == ["train-0", "train-2", "train-3", "train-5", "valid-0"]
    extract(dataset, tmp_path / "anew")
    assert clips_of(tmp_path / "work") == clips_of(tmp_path / "anew")
    assert_aligned_as_decoded(dataset, tmp_path / "work")


def test_another_feature_is_computed_beside_those_that_are_there(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path, replace(REQUEST, features=(AUDIO,)))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("audio/*.h5")}
    extract(dataset, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("audio/*.h5")} == times
    assert_aligned_as_decoded(dataset, tmp_path)


def test_a_changed_file_is_computed_again_and_no_other(
    dataset: Dataset, tmp_path: Path, computed: list[str]
) -> None:
    extract(dataset, tmp_path / "work")
    edit(dataset.clips[4])
    summary = extract(dataset, tmp_path / "work")
    assert summary.new_clips == 1
    assert summary.audio_s == pytest.approx(2.0)
    assert computed[8:] == ["train-4"]
    extract(dataset, tmp_path / "anew")
    assert clips_of(tmp_path / "work") == clips_of(tmp_path / "anew")
    assert_aligned_as_decoded(dataset, tmp_path / "work")


def test_a_shard_whose_every_clip_was_replaced_is_removed(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path)
    for clip in dataset.clips[3:6]:
        edit(clip)
    extract(dataset, tmp_path)
    assert native(tmp_path) == {f"{f}/0000{k}" for f in ("audio", "loudness") for k in (0, 2, 3)}
    assert_aligned_as_decoded(dataset, tmp_path)
    # The number that is free now goes to clips that are in no shard, and to no others.
    edit(dataset.clips[0])
    write(tmp_path / "source" / "new.wav", tone(1.0, 22050, seed=7), 22050)
    more = with_clips(dataset, [*dataset.clips, make_clip(tmp_path / "source" / "new.wav")])
    extract(more, tmp_path, replace(REQUEST, shard_clips=1))
    assert native(tmp_path) == {f"{f}/0000{k}" for f in ("audio", "loudness") for k in range(5)}
    assert_aligned_as_decoded(more, tmp_path)


@pytest.mark.parametrize(("before", "after"), [(2, 6), (6, 2)])
def test_another_shard_size_computes_nothing_again(
    before: int, after: int, dataset: Dataset, tmp_path: Path, computed: list[str]
) -> None:
    extract(dataset, tmp_path, replace(REQUEST, shard_clips=before))
    edit(dataset.clips[5])
    extract(dataset, tmp_path, replace(REQUEST, shard_clips=after))
    assert computed[8:] == ["train-5"]
    assert_aligned_as_decoded(dataset, tmp_path)


def test_shards_of_clips_that_left_or_of_other_settings_are_removed(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    fewer = with_clips(dataset, dataset.clips[:6])
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    extract(fewer, tmp_path, louder)
    assert native(tmp_path) == {"audio/00000", "audio/00001", "loudness/00003", "loudness/00004"}
    assert_aligned_as_decoded(fewer, tmp_path)


def test_a_limited_run_with_other_settings_keeps_what_lies_beyond(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    extract(dataset, tmp_path, louder, limit=2)
    assert {"loudness/00000", "loudness/00001", "loudness/00003"} <= native(tmp_path)
    with pytest.raises(FeatregError, match=r"00003\.h5: .*gain was 1\.0, now 2\.0.*--limit"):
        align(tmp_path)
    assert extract(dataset, tmp_path, louder).new_clips == 4
    assert_aligned_as_decoded(dataset, tmp_path)


def test_a_release_that_decodes_or_aligns_otherwise_redoes_what_it_touches(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(dataset, tmp_path)
    assert len(align(tmp_path)) == 3
    monkeypatch.setattr("featreg.extract.alignment.align_shards.REVISION", 2)
    assert len(align(tmp_path)) == 3
    assert align(tmp_path) == []
    monkeypatch.setattr("featreg.datasets.audio.decode.REVISION", 1000)
    plan = make_plan(dataset, DatasetDir(tmp_path / "tones"), REQUEST)
    reasons = {f"audio_revision was {REVISION}, now 1000": 8}
    assert plan.reasons == {"audio": reasons, "loudness": reasons}


def test_failures_of_a_feature_are_listed_until_the_file_changes(
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
    assert plan_alignment(DatasetDir(tmp_path / "tones"), (), 0.1, "repeat").absent == 1
    monkeypatch.undo()
    edit(dataset.clips[1])
    extract(dataset, tmp_path)
    assert listed.read_text() == "clip_id,stage,reason\n"
    assert_aligned_as_decoded(dataset, tmp_path)


def test_failed_clips_are_tried_again_on_request_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Loudness, clip_id: str, signal: Signal) -> Signal:
        raise ClipError("extract", "too quiet")

    monkeypatch.setattr(type(LOUDNESS.extractor()), "prepare", refuse)
    assert extract(dataset, tmp_path / "work").failed == 8
    assert extract(dataset, tmp_path / "work").new_clips == 0
    monkeypatch.undo()
    again = extract(dataset, tmp_path / "work", retry_failed=True)
    assert (again.new_clips, again.failed) == (8, 0)
    assert extract(dataset, tmp_path / "work", retry_failed=True).new_clips == 0
    extract(dataset, tmp_path / "anew")
    assert clips_of(tmp_path / "work") == clips_of(tmp_path / "anew")


def test_frames_of_a_file_that_changed_since_are_not_put_beside_its_audio(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path)
    edit(dataset.clips[1])
    extract(dataset, tmp_path, replace(REQUEST, features=(AUDIO,)))
    with pytest.raises(FeatregError, match=r"train-1\).*features loudness"):
        align(tmp_path)
    extract(dataset, tmp_path)
    assert_aligned_as_decoded(dataset, tmp_path)
