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
def planned(aligned: Work) -> Work:
    return aligned


def found(planned: Work, *damaged: Path) -> list[str]:
    faults, _ = folder_faults(planned.folder, damaged)
    return faults


def counted(planned: Work) -> list[str]:
    """The lines that count clips, without the dataset's name."""
    _, lines = folder_faults(planned.folder, ())
    return [line.removeprefix("tones: ") for line in lines]


def only(planned: Work, *damaged: Path) -> str:
    (fault,) = found(planned, *damaged)
    return fault


WHOLE = "5 clips present, 0 failed, 0 missing, of 5 requested"


def test_a_whole_folder_has_no_faults(planned: Work) -> None:
    assert found(planned) == []
    assert counted(planned) == [
        f"audio: {WHOLE}",
        f"wide: {WHOLE}",
        f"deep: {WHOLE}",
        "aligned wide+deep-0.1s: 5 clips of 5",
    ]


def test_clips_without_a_shard_are_missing(planned: Work) -> None:
    path = planned.folder.native("wide") / "00001.h5"
    path.unlink()
    assert "wide: 2 clips (such as c) missing" in only(planned)
    assert "wide: 3 clips present, 0 failed, 2 missing, of 5 requested" in counted(planned)
    (planned.folder.native("wide") / "00002.h5").unlink()
    assert "3 clips (such as c)" in only(planned)
    # What is in a damaged shard is not missed as well.
    assert found(planned, planned.folder.native("wide") / "00009.h5") == []
    assert len(found(planned, planned.folder.native("deep") / "00009.h5")) == 1
    planned.store("wide", 1, "d")
    assert "2 clips (such as c)" in only(planned)
    planned.store("wide", 2, "e")
    assert "clip c missing" in only(planned)


def test_failed_clips_are_not_missing(planned: Work) -> None:
    planned.store("wide", 1, "c", failed="d")
    planned.store("wide", 2, "")
    planned.folder.write_failures([("e", "decode", "crash")], judged=())
    faults, lines = folder_faults(planned.folder, ())
    assert "tones: wide: 3 clips present, 2 failed, 0 missing, of 5 requested" in lines
    # A clip that the shards hold is judged by them alone.
    assert f"tones: audio: {WHOLE}" in lines
    (fault,) = faults
    assert "aligned/wide+deep-0.1s" in fault


def test_only_what_was_asked_for_is_missed(planned: Work) -> None:
    path = planned.folder.dataset_json
    text = path.read_text()
    assert text.count('"train": null') == 3
    path.write_text(text.replace('"train": null', '"train": 4'))
    for name in ("audio", "wide", "deep"):
        (planned.folder.native(name) / "00002.h5").unlink()
    (planned.folder.aligned("wide+deep-0.1s") / "00002.h5").unlink()
    assert found(planned) == []
    assert "deep: 4 clips present, 0 failed, 0 missing, of 4 requested" in counted(planned)


def test_native_shards_of_clips_that_left_are_counted(planned: Work) -> None:
    del planned.clips[3:]
    planned.record()
    line = "audio: 3 clips present, 0 failed, 0 missing, of 3 requested"
    assert f"{line}; 2 more not in clips.csv" in counted(planned)
    faults = found(planned)
    assert len(faults) == 2
    assert "00001.h5: clip d not in" in faults[0]
    assert "00002.h5: clip e not in" in faults[1]
    assert counted(planned)[-1] == "aligned wide+deep-0.1s: 5 clips of 3"


def test_native_shards_of_other_settings_are_a_fault(planned: Work) -> None:
    planned.store("deep", 1, "cd", weights_sha256="other")
    assert "native/deep: shards with different settings" in only(planned)


@pytest.mark.parametrize("part", ["native", "aligned"])
def test_a_part_may_have_been_deleted(planned: Work, part: str) -> None:
    (planned.folder.path / part).rename(planned.folder.path / "elsewhere")
    assert found(planned) == []
    assert len(counted(planned)) == (1 if part == "native" else 3)


def test_a_feature_may_have_been_deleted(planned: Work) -> None:
    """What was asked for is missing; the aligned shards are not held to it."""
    planned.folder.native("deep").rename(planned.folder.path / "elsewhere")
    assert "deep: 5 clips (such as a) missing" in only(planned)


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0, 0], np.uint8)},
        {"label_mask": np.array([1, 0], np.uint8)},
        {"split": "valid"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_aligned_annotations_are_those_of_the_list(
    planned: Work, change: dict[str, object]
) -> None:
    planned.clips[3] = replace(planned.clips[3], **change)  # type: ignore[arg-type]
    planned.record()
    fault = only(planned)
    assert "00001.h5: split or labels differ" in fault
    assert "clip d;" in fault
    assert "prep align --dataset tones --resolution 0.1 --features wide,deep`" in fault


def test_aligned_classes_are_those_of_the_list(planned: Work) -> None:
    path = planned.folder.dataset_json
    path.write_text(path.read_text().replace('"low"', '"deep"'))
    planned.folder.clips_csv.write_text(planned.folder.clips_csv.read_text().replace("low", "deep"))
    faults = found(planned)
    assert len(faults) == 3
    assert all("classes" in fault for fault in faults)
    assert found(planned, *planned.folder.aligned("wide+deep-0.1s").iterdir()) == []


def test_one_more_class_is_one_fault_of_each_shard(planned: Work) -> None:
    one = np.ones(1, np.uint8)
    clips = tuple(
        replace(clip, label=np.r_[clip.label, one], label_mask=np.r_[clip.label_mask, one])
        for clip in planned.clips
    )
    planned.folder.write_dataset(Dataset("tones", ("low", "high", "top"), clips), [])
    assert len(found(planned)) == 3


def test_aligned_shards_are_made_from_what_is_there(planned: Work) -> None:
    target = planned.folder.aligned("wide+deep-0.1s")
    (target / "00001.h5").unlink()
    assert "shard 00001.h5 missing" in only(planned)
    # Its own fault says enough of a damaged shard.
    assert found(planned, target / "00001.h5") == []
    (target / "00000.h5").unlink()
    assert "2 shards, such as 00000.h5," in only(planned)
    assert "shard 00001.h5 missing" in only(planned, target / "00000.h5")


def test_shards_to_which_no_clip_belongs_any_more_are_a_fault(planned: Work) -> None:
    for name in ("audio", "wide", "deep"):
        planned.store(name, 3, "e")
    planned.align()
    assert "shard 00002.h5 missing" in only(planned)


def test_native_frames_that_changed_since_are_a_fault(planned: Work) -> None:
    planned.store("wide", 0, "ab", version=1)
    assert "shard 00000.h5 missing" in only(planned)
    # Of damaged native shards nothing is known.
    assert found(planned, planned.folder.native("wide") / "00000.h5") == []
    assert found(planned, planned.folder.native("audio") / "00000.h5") == []
    assert len(found(planned, planned.folder.native("other") / "00000.h5")) == 1


def test_a_native_fault_is_said_once(planned: Work) -> None:
    planned.store("wide", 0, "a")
    assert "clip b missing" in only(planned)


def test_a_set_of_another_name_is_not_held_to_the_native_shards(planned: Work) -> None:
    planned.folder.aligned("wide+deep-0.1s").rename(planned.folder.aligned("kept"))
    planned.store("wide", 0, "ab", version=1)
    assert found(planned) == []
    assert counted(planned)[-1] == "aligned kept: 5 clips of 5"


def test_the_mode_stands_in_the_command(planned: Work) -> None:
    for job in planned.plan(mode="area").jobs[:2]:
        align_shard(job)
    assert "--features wide,deep --mode area`" in only(planned)


def test_a_clip_that_is_aligned_and_not_in_the_list_is_named(planned: Work) -> None:
    (job, *_) = planned.plan(resolution_s=0.3).jobs
    with aligned_writer(job.target, job.header, job.fingerprint) as shard:
        for clip_id in "xy":
            values = {name: frames(name, clip_id)[:5] for name in ("wide", "deep")}
            clip = replace(planned.clips[0], clip_id=clip_id)
            shard.append(clip, values, frames("audio", clip_id)[:, 0], 1.5)
    assert "2 clips (such as x) not in" in only(planned)


def test_what_cannot_be_read_is_a_fault(planned: Work) -> None:
    planned.folder.failures_csv.write_text("{")
    assert "failures.csv" in only(planned)


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
