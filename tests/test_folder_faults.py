"""Errors that `prep verify` finds in a working folder, and the shards that they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native_shards import Work, frames

from featreg.datasets.base import Dataset
from featreg.datasets.shards.aligned import aligned_writer
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard
from featreg.extract.inspection.verify_folder import dataset_folders, folder_faults

pytest_plugins = ("native_fixtures",)


@pytest.fixture
def work(aligned: Work) -> Work:
    return aligned


def found(work: Work, *damaged: Path) -> list[str]:
    faults, _ = folder_faults(work.folder, damaged)
    return faults


def counted(work: Work) -> list[str]:
    """The lines that count clips, without the dataset's name."""
    _, lines = folder_faults(work.folder, ())
    return [line.removeprefix("tones: ") for line in lines]


def only(work: Work, *damaged: Path) -> str:
    (fault,) = found(work, *damaged)
    return fault


WHOLE = "5 clips present, 0 failed, 0 missing, of 5 requested"


def test_a_whole_folder_has_no_faults(work: Work) -> None:
    assert found(work) == []
    assert counted(work) == [
        f"audio: {WHOLE}",
        f"wide: {WHOLE}",
        f"deep: {WHOLE}",
        "aligned wide+deep-0.1s: 5 clips of 5",
    ]


def test_clips_without_a_shard_are_missing(work: Work) -> None:
    path = work.folder.native("wide") / "00001.h5"
    path.unlink()
    assert "wide: 2 clips (such as c) missing" in only(work)
    assert "wide: 3 clips present, 0 failed, 2 missing, of 5 requested" in counted(work)
    (work.folder.native("wide") / "00002.h5").unlink()
    assert "3 clips (such as c)" in only(work)
    # What is in a damaged shard is not missed as well.
    assert found(work, work.folder.native("wide") / "00009.h5") == []
    assert len(found(work, work.folder.native("deep") / "00009.h5")) == 1
    work.store("wide", 1, "d")
    assert "2 clips (such as c)" in only(work)
    work.store("wide", 2, "e")
    assert "clip c missing" in only(work)


def test_failed_clips_are_not_missing(work: Work) -> None:
    work.store("wide", 1, "c", failed="d")
    work.store("wide", 2, "")
    work.folder.write_failures([("e", "decode", "crash")], judged=())
    faults, lines = folder_faults(work.folder, ())
    assert "tones: wide: 3 clips present, 2 failed, 0 missing, of 5 requested" in lines
    # A clip that the shards hold is judged by them alone.
    assert f"tones: audio: {WHOLE}" in lines
    (fault,) = faults
    assert "aligned/wide+deep-0.1s" in fault


def test_only_what_was_asked_for_is_missed(work: Work) -> None:
    path = work.folder.dataset_json
    text = path.read_text()
    assert text.count('"train": null') == 3
    path.write_text(text.replace('"train": null', '"train": 4'))
    for name in ("audio", "wide", "deep"):
        (work.folder.native(name) / "00002.h5").unlink()
    (work.folder.aligned("wide+deep-0.1s") / "00002.h5").unlink()
    assert found(work) == []
    assert "deep: 4 clips present, 0 failed, 0 missing, of 4 requested" in counted(work)


def test_native_shards_of_clips_that_left_are_counted(work: Work) -> None:
    del work.clips[3:]
    work.record()
    line = "audio: 3 clips present, 0 failed, 0 missing, of 3 requested"
    assert f"{line}; 2 more not in clips.csv" in counted(work)
    faults = found(work)
    assert len(faults) == 2
    assert "00001.h5: clip d not in" in faults[0]
    assert "00002.h5: clip e not in" in faults[1]
    assert counted(work)[-1] == "aligned wide+deep-0.1s: 5 clips of 3"


def test_native_shards_of_other_settings_are_a_fault(work: Work) -> None:
    work.store("deep", 1, "cd", weights_sha256="other")
    assert "native/deep: shards with different settings" in only(work)


@pytest.mark.parametrize("part", ["native", "aligned"])
def test_a_part_may_have_been_deleted(work: Work, part: str) -> None:
    (work.folder.path / part).rename(work.folder.path / "elsewhere")
    assert found(work) == []
    assert len(counted(work)) == (1 if part == "native" else 3)


def test_a_feature_may_have_been_deleted(work: Work) -> None:
    """What was asked for is missing; the aligned shards are not held to it."""
    work.folder.native("deep").rename(work.folder.path / "elsewhere")
    assert "deep: 5 clips (such as a) missing" in only(work)


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0, 0], np.uint8)},
        {"label_mask": np.array([1, 0], np.uint8)},
        {"split": "valid"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_aligned_annotations_are_those_of_the_list(work: Work, change: dict[str, object]) -> None:
    work.clips[3] = replace(work.clips[3], **change)  # type: ignore[arg-type]
    work.record()
    fault = only(work)
    assert "00001.h5: split or labels differ" in fault
    assert "clip d;" in fault
    assert "prep align --dataset tones --resolution 0.1 --features wide,deep`" in fault


def test_aligned_classes_are_those_of_the_list(work: Work) -> None:
    path = work.folder.dataset_json
    path.write_text(path.read_text().replace('"low"', '"deep"'))
    work.folder.clips_csv.write_text(work.folder.clips_csv.read_text().replace("low", "deep"))
    faults = found(work)
    assert len(faults) == 3
    assert all("classes" in fault for fault in faults)
    assert found(work, *work.folder.aligned("wide+deep-0.1s").iterdir()) == []


def test_one_more_class_is_one_fault_of_each_shard(work: Work) -> None:
    one = np.ones(1, np.uint8)
    clips = tuple(
        replace(clip, label=np.r_[clip.label, one], label_mask=np.r_[clip.label_mask, one])
        for clip in work.clips
    )
    work.folder.write_dataset(Dataset("tones", ("low", "high", "top"), clips), [])
    assert len(found(work)) == 3


def test_aligned_shards_are_made_from_what_is_there(work: Work) -> None:
    target = work.folder.aligned("wide+deep-0.1s")
    (target / "00001.h5").unlink()
    assert "shard 00001.h5 missing" in only(work)
    # Its own fault says enough of a damaged shard.
    assert found(work, target / "00001.h5") == []
    (target / "00000.h5").unlink()
    assert "2 shards, such as 00000.h5," in only(work)
    assert "shard 00001.h5 missing" in only(work, target / "00000.h5")


def test_shards_to_which_no_clip_belongs_any_more_are_a_fault(work: Work) -> None:
    for name in ("audio", "wide", "deep"):
        work.store(name, 3, "e")
    work.align()
    assert "shard 00002.h5 missing" in only(work)


def test_native_frames_that_changed_since_are_a_fault(work: Work) -> None:
    work.store("wide", 0, "ab", version=1)
    assert "shard 00000.h5 missing" in only(work)
    # Of damaged native shards nothing is known.
    assert found(work, work.folder.native("wide") / "00000.h5") == []
    assert found(work, work.folder.native("audio") / "00000.h5") == []
    assert len(found(work, work.folder.native("other") / "00000.h5")) == 1


def test_a_native_fault_is_said_once(work: Work) -> None:
    work.store("wide", 0, "a")
    assert "clip b missing" in only(work)


def test_a_set_of_another_name_is_not_held_to_the_native_shards(work: Work) -> None:
    work.folder.aligned("wide+deep-0.1s").rename(work.folder.aligned("kept"))
    work.store("wide", 0, "ab", version=1)
    assert found(work) == []
    assert counted(work)[-1] == "aligned kept: 5 clips of 5"


def test_the_mode_stands_in_the_command(work: Work) -> None:
    for job in work.plan(mode="area").jobs[:2]:
        align_shard(job)
    assert "--features wide,deep --mode area`" in only(work)


def test_a_clip_that_is_aligned_and_not_in_the_list_is_named(work: Work) -> None:
    (job, *_) = work.plan(resolution_s=0.3).jobs
    with aligned_writer(job.target, job.header, job.fingerprint) as shard:
        for clip_id in "xy":
            values = {name: frames(name, clip_id)[:5] for name in ("wide", "deep")}
            clip = replace(work.clips[0], clip_id=clip_id)
            shard.append(clip, values, frames("audio", clip_id)[:, 0], 1.5)
    assert "2 clips (such as x) not in" in only(work)


def test_what_cannot_be_read_is_a_fault(work: Work) -> None:
    work.folder.failures_csv.write_text("{")
    assert "failures.csv" in only(work)


def test_datasets_are_found_by_their_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("b/native/x/00000.h5", "a/aligned/y/00000.h5", "a/native/x/00001.h5",
             "c/other/x/00000.h5", "d/native/x/00000.h5", "e.h5")  # fmt: skip
    paths = [tmp_path / name for name in names]
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "clips.csv").touch()
    both = [DatasetDir(tmp_path / name) for name in "ab"]
    assert dataset_folders(tmp_path, paths) == both
    assert dataset_folders(tmp_path / "a", paths[1:3]) == both[:1]
    assert dataset_folders(tmp_path / "a" / "native", paths[2:3]) == []
    assert dataset_folders(Path(), [Path("x.h5")]) == []
    monkeypatch.chdir(tmp_path / "a")
    assert dataset_folders(Path(), [Path("native/x/00000.h5")]) == [DatasetDir(Path())]
