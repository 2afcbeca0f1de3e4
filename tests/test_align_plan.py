"""Which aligned shards are written again, what they are made from, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
import pytest
from native_shards import HEADERS, RATE, SECONDS, Work, frames

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards.aligned import AlignedHeader, read_index
from featreg.datasets.shards.native import native_writer
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.alignment import align_shards
from featreg.extract.alignment.align_shards import AlignPlan, aligned_name

pytest_plugins = ("native_fixtures",)


def groups(plan: AlignPlan) -> dict[str, str]:
    return {job.target.name: "".join(clip.clip_id for clip in job.clips) for job in plan.jobs}


def test_each_shard_of_the_audio_becomes_one_with_every_feature(planned: Work) -> None:
    plan = planned.plan()
    assert plan.target == planned.folder.path / "aligned" / "wide+deep-0.1s"
    assert groups(plan) == {"00000.h5": "ab", "00001.h5": "cd", "00002.h5": "e"}
    assert (plan.done, plan.clips, plan.absent, plan.stale) == (0, 5, 0, ())
    (first, *_) = plan.jobs
    assert first.target == plan.target / "00000.h5"
    assert first.clips[0].label.tolist() == planned.clips[0].label.tolist()
    assert first.sources == {
        name: (planned.folder.native(name) / "00000.h5",) for name in ("wide", "deep", "audio")
    }
    assert first.header == AlignedHeader(
        dataset="tones",
        task="multi-label",
        classes=("low", "high"),
        resolution_s=0.1,
        mode="repeat",
        audio_rate=RATE,
        features={
            "wide": {"dim": 3, "columns": [0, 3], "hop_s": 0.1, "window_s": 0.2,
                     "first_center_s": 0.05, "sample_rate": 8000, "weights_sha256": "net",
                     "settings": {"k": 1}},
            "deep": {"dim": 2, "columns": [3, 5], "hop_s": 0.2, "window_s": 0.2,
                     "first_center_s": 0.1, "sample_rate": 4000, "weights_sha256": "",
                     "settings": {}},
        },
        notes=("Tones.",),
        audio_settings={"resampler": "soxr_hq"},
    )  # fmt: skip


def test_a_set_is_named_after_features_resolution_and_mode() -> None:
    assert aligned_name(["a", "b"], 0.1, "repeat") == "a+b-0.1s"
    assert aligned_name(["a"], 0.05, "area") == "a-0.05s-area"


def test_without_names_all_features_are_meant_in_the_order_asked_for(planned: Work) -> None:
    assert list(planned.plan(()).jobs[0].header.features) == ["wide", "deep"]
    assert list(planned.plan(("deep",)).jobs[0].header.features) == ["deep"]
    for name in ("wide", "deep"):
        for path in planned.folder.native(name).iterdir():
            path.unlink()
    with pytest.raises(FeatregError, match="only audio"):
        planned.plan(())
    with pytest.raises(FeatregError, match=r"'deep'.*audio"):
        planned.plan(("deep",))


def test_what_is_done_is_counted_and_not_written_again(planned: Work) -> None:
    assert planned.align() == ["00000.h5", "00001.h5", "00002.h5"]
    plan = planned.plan()
    assert (plan.jobs, plan.done, plan.clips) == ((), 3, 5)
    (plan.target / "00001.h5").unlink()
    (plan.target / "00002.h5").write_bytes(b"damaged")
    assert groups(planned.plan()) == {"00001.h5": "cd", "00002.h5": "e"}
    assert planned.plan().done == 1
    assert planned.align() == ["00001.h5", "00002.h5"]


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0, 0], np.uint8)},
        {"label_mask": np.array([1, 0], np.uint8)},
        {"split": "test"},
        {"fold": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_annotation_makes_another_fingerprint(
    aligned: Work, change: dict[str, Any]
) -> None:
    aligned.clips[3] = replace(aligned.clips[3], **change)
    aligned.record()
    assert groups(aligned.plan()) == {"00001.h5": "cd"}


def test_clips_in_another_order_make_another_fingerprint(aligned: Work) -> None:
    aligned.clips = [aligned.clips[1], aligned.clips[0], *aligned.clips[2:]]
    aligned.record()
    assert groups(aligned.plan()) == {"00000.h5": "ba"}


@pytest.mark.parametrize("name", ["audio", "wide", "deep"])
def test_other_frames_make_another_fingerprint(aligned: Work, name: str) -> None:
    aligned.store(name, 2, "e", version=1)
    assert groups(aligned.plan()) == {"00002.h5": "e"}


def test_another_header_or_rule_makes_another_fingerprint(
    aligned: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned.record(notes=("Noise.",))
    assert len(aligned.plan().jobs) == 3
    aligned.record()
    assert aligned.plan().jobs == ()
    monkeypatch.setattr(align_shards, "REVISION", align_shards.REVISION + 1)
    assert len(aligned.plan().jobs) == 3


def test_of_shards_that_hold_a_clip_the_last_is_the_source(aligned: Work) -> None:
    aligned.store("audio", 3, "b", version=7)
    aligned.store("wide", 100_000, "bd", version=7)
    plan = aligned.plan()
    assert groups(plan) == {"00000.h5": "a", "00001.h5": "cd", "00003.h5": "b"}
    assert [path.stem for path in plan.jobs[1].sources["wide"]] == ["00001", "100000"]
    assert plan.jobs[2].sources["audio"] == (aligned.folder.native("audio") / "00003.h5",)
    assert (plan.done, plan.clips, plan.absent) == (1, 5, 0)
    aligned.align()
    index, whole = read_index(plan.target / "00001.h5"), plan.target / "00003.h5"
    with h5py.File(plan.target / "00001.h5") as file:
        values = file["features/wide"][()]
    np.testing.assert_array_equal(values[: index.offset[1]], frames("wide", "c"))
    np.testing.assert_array_equal(values[index.offset[1] :], frames("wide", "d", version=7))
    with h5py.File(whole) as file:
        np.testing.assert_array_equal(file["audio"], frames("audio", "b", version=7)[:, 0])


def test_clips_that_lack_a_feature_are_left_out_and_counted(aligned: Work) -> None:
    aligned.store("deep", 1, "c", failed="d")
    aligned.store("wide", 2, "", failed="e")
    plan = aligned.plan()
    assert groups(plan) == {"00001.h5": "c"}
    assert (plan.done, plan.clips, plan.absent) == (1, 3, 2)
    assert plan.stale == (plan.target / "00002.h5",)
    for number in range(3):
        aligned.store("deep", number, "", failed="abcde")
    with pytest.raises(FeatregError, match=r"failures\.csv"):
        aligned.plan()


def test_clips_that_are_not_in_the_list_are_not_aligned(planned: Work) -> None:
    del planned.clips[3:]
    planned.record()
    plan = planned.plan()
    assert groups(plan) == {"00000.h5": "ab", "00001.h5": "c"}
    assert (plan.clips, plan.absent) == (3, 0)


def test_features_of_another_file_than_the_audio_are_refused(planned: Work) -> None:
    with native_writer(planned.folder.native("wide") / "00001.h5", HEADERS["wide"]) as shard:
        shard.append("c", frames("wide", "c"), SECONDS, "file c")
        shard.append("d", frames("wide", "d"), SECONDS, "another file")
        shard.append("z", frames("wide", "z"), SECONDS, "file of a clip without audio")
    with pytest.raises(FeatregError, match=r"1 clip .*\bd\).*features wide"):
        planned.plan()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"k": 2}}, "k was 1, now 2"),
        ({"weights_sha256": "other"}, "weights"),
        ({"dim": 3, "timing": FrameTiming(0.1, 0.3, 0.0)}, "timing"),
    ],
)
def test_shards_of_other_settings_are_refused(
    planned: Work, changes: Mapping[str, Any], said: str
) -> None:
    planned.store("wide", 1, "cd", **changes)
    with pytest.raises(FeatregError, match=rf"00001\.h5.*00000\.h5.*{said}.*features wide"):
        planned.plan()


def test_a_damaged_native_shard_is_named(planned: Work) -> None:
    path = planned.folder.native("deep") / "00001.h5"
    path.write_bytes(b"no shard")
    with pytest.raises(FeatregError, match=r"deep/00001\.h5"):
        planned.plan()
    assert groups(planned.plan(("wide",))) == {"00000.h5": "ab", "00001.h5": "cd", "00002.h5": "e"}


@pytest.mark.parametrize("resolution_s", [0, -0.1, math.nan, math.inf, 0.011, 0.1 + 1e-7])
def test_resolutions_that_are_no_whole_samples_are_refused(
    planned: Work, resolution_s: float
) -> None:
    with pytest.raises(UsageError, match="--resolution"):
        planned.plan(resolution_s=resolution_s)


@pytest.mark.parametrize("resolution_s", [0.01, 0.07, 0.3, 1.0, 0.1 + 1e-9])
def test_resolutions_that_are_whole_up_to_rounding_are_taken(
    planned: Work, resolution_s: float
) -> None:
    assert len(planned.plan(resolution_s=resolution_s).jobs) == 3


@pytest.mark.parametrize("pieces", [(2048, 1 << 20), (4, 7), (5, 50)])
def test_shards_hold_every_frame_whatever_is_in_memory(
    planned: Work, pieces: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in zip(("_FRAMES", "_SAMPLES"), pieces, strict=True):
        monkeypatch.setattr(align_shards, name, size)
    planned.align()
    index = read_index(planned.plan().target / "00001.h5")
    assert index.clip_id == ("c", "d")
    assert index.duration_s.tolist() == [SECONDS, SECONDS]
    assert np.diff(index.offset).tolist() == [15, 15]
    with h5py.File(index.path) as file:
        for k, clip_id in enumerate("cd"):
            first, last = index.offset[k : k + 2]
            np.testing.assert_array_equal(
                file["features/wide"][first:last], frames("wide", clip_id)
            )
            doubled = frames("deep", clip_id).repeat(2, axis=0)
            np.testing.assert_array_equal(
                file["features/deep"][first:last], np.r_[doubled, doubled[-1:]][:15]
            )
            first, last = index.audio_offset[k : k + 2]
            np.testing.assert_array_equal(file["audio"][first:last], frames("audio", clip_id)[:, 0])
