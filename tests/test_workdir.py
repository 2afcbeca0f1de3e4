"""The clip list and the record of what was asked for come back as they were written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from extractions import align, extract
from kit import make_clip, tone, write

from featreg.datasets.base import Clip, Dataset, FeatregError
from featreg.datasets.collections import manifest
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.workdir import DatasetDir

NAMES = [
    'quo"te', "'quote'", "carriage\rreturn", "line\nfeed", "\r\n", " leading", "trailing ", " ",
    "com,ma", "\udcff\udcfe.wav", "NA", "nan", "None", "", "1", "01", "1e5", "é", "e\u0301",
    "#", "\\", "\t", "true",
]  # fmt: skip


@pytest.mark.parametrize("classes", [("low", "high"), ("path", "fold"), ("a\rb", 'c"d,')])
def test_any_name_comes_back_from_the_clip_list(classes: tuple[str, str], tmp_path: Path) -> None:
    clips = tuple(
        Clip(
            name,
            Path("/music") / (name or "x"),
            ("train", "valid", "test")[k % 3],  # type: ignore[arg-type]
            np.array([k % 2, 0], np.uint8),
            np.array([1, k % 4 == 0], np.uint8),
            0.1 * k,
            None if k % 3 else 1 / 3,
            k if k % 5 else None,
        )
        for k, name in enumerate(NAMES)
    )
    folder = DatasetDir(tmp_path / "odd")
    folder.write_dataset(Dataset("odd", classes, clips), ["audio"])
    found = folder.read_dataset()
    assert found.classes == classes
    for clip, back in zip(clips, found.clips, strict=True):
        for name in ("clip_id", "path", "split", "start_s", "duration_s", "fold"):
            assert getattr(back, name) == getattr(clip, name), (clip.clip_id, name)
        np.testing.assert_array_equal(back.label, clip.label)
        np.testing.assert_array_equal(back.label_mask, clip.label_mask)
    assert folder.read_durations() == {c.clip_id: c.duration_s for c in clips if c.duration_s}
    failures = {(name, "decode", f"{name}: no audio") for name in NAMES}
    folder.write_failures(failures, judged=())
    assert folder.read_failures() == failures


def test_files_of_any_name_are_extracted_and_aligned(tmp_path: Path) -> None:
    names = ["carriage\rreturn", "line\nfeed", " leading", "trailing ", "a,b"]
    clips = []
    for name in names:
        path = tmp_path / name
        write(tmp_path / "x.wav", tone(1.0, 16000), 16000).rename(path)
        clips.append(make_clip(path, name))
    clips.append(make_clip(tmp_path / os.fsdecode(b"missing\r\xff")))
    dataset = Dataset("tones", ("low", "high"), tuple(clips))
    summary = extract(dataset, tmp_path / "work")
    assert (summary.clips, summary.failed) == (5, 1)
    assert extract(dataset, tmp_path / "work").new_clips == 0
    found = [clip_id for path in align(tmp_path / "work") for clip_id in read_index(path).clip_id]
    assert found == names


def test_the_most_that_was_asked_for_is_recorded(tmp_path: Path) -> None:
    dataset = Dataset("tones", ("low", "high"), (make_clip(tmp_path / "a.wav"),))
    folder = DatasetDir(tmp_path / "tones")
    folder.write_dataset(dataset, ["audio"], limits={"train": 3})
    folder.write_dataset(dataset, ["audio", "vggish"], limits={"train": 2, "test": None})
    assert folder.asked() == {
        "audio": {"train": 3, "test": None},
        "vggish": {"train": 2, "test": None},
    }
    folder.write_dataset(dataset, ["vggish"])
    assert folder.asked()["vggish"] == {"train": None, "valid": None, "test": None}
    folder.write_dataset(dataset, ["vggish"], limits={"train": 1})
    assert folder.asked()["vggish"]["train"] is None
    assert folder.feature_order() == ["audio", "vggish"]


def test_folds_are_read_from_a_manifest_and_from_the_clip_list(tmp_path: Path) -> None:
    lines = ["path,labels,split,fold"]
    for k, split in enumerate(("train", "valid", "test")):
        write(tmp_path / f"{k}.wav", tone(1.0, 16000), 16000)
        lines.append(f"{k}.wav,low,{split},{k or ''}")
    (tmp_path / "tones.csv").write_text("\n".join(lines))
    dataset = manifest.read(tmp_path / "tones.csv", allow_missing=True)
    assert [clip.fold for clip in dataset.clips] == [None, 1, 2]
    folder = DatasetDir(tmp_path / "work" / "tones")
    folder.write_dataset(dataset, ["audio"])
    again = manifest.read(folder.clips_csv, allow_missing=True)
    assert [clip.fold for clip in again.clips] == [None, 1, 2]
    (tmp_path / "tones.csv").write_text("\n".join([*lines[:3], "2.wav,low,test,first"]))
    with pytest.raises(FeatregError, match=r"line 4.*fold.*'first'"):
        manifest.read(tmp_path / "tones.csv", allow_missing=True)
