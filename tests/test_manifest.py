from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from label_files import splits, write

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections.manifest import read
from featreg.datasets.shards.workdir import DatasetDir

BASIC = """\
path,split,labels
a.wav,train,dog|cat
b.wav,valid,cat
c.wav,test,dog
d.wav,train,
"""


def test_labels_in_one_column(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, BASIC))
    assert (dataset.name, dataset.classes, dataset.task) == ("mine", ("cat", "dog"), "multi-label")
    assert [clip.label.tolist() for clip in dataset.clips] == [[1, 1], [1, 0], [0, 1], [0, 0]]
    assert [clip.label_mask.tolist() for clip in dataset.clips] == [[1, 1], [1, 1], [1, 1], [0, 0]]
    assert [clip.clip_id for clip in dataset.clips] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert [clip.path for clip in dataset.clips] == [tmp_path / f"{x}.wav" for x in "abcd"]
    assert splits(dataset) == {
        "a.wav": "train", "b.wav": "valid", "c.wav": "test", "d.wav": "train",
    }  # fmt: skip


@pytest.mark.parametrize("name", [" x.wav", "x.wav ", "  x y.wav"])
def test_a_name_may_begin_or_end_with_a_space(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "e.wav").touch()
    dataset = read(write(tmp_path, f"{BASIC}{name},train,dog\n e.wav ,train,dog\n"))
    assert [clip.path for clip in dataset.clips[4:]] == [tmp_path / name, tmp_path / "e.wav"]


def test_labels_in_columns_where_empty_is_not_annotated(tmp_path: Path) -> None:
    text = (
        "zebra,path,split,ant\n1,a.wav,train,0\n,b.wav,valid,1\n1,c.wav,test,1\n0,d.wav,train,1\n"
    )
    dataset = read(write(tmp_path, text))
    assert dataset.classes == ("zebra", "ant")
    assert [clip.label.tolist() for clip in dataset.clips] == [[1, 0], [0, 1], [1, 1], [0, 1]]
    assert [clip.label_mask.tolist() for clip in dataset.clips] == [[1, 1], [0, 1], [1, 1], [1, 1]]


def test_excerpts_of_one_file(tmp_path: Path) -> None:
    text = (
        "path,start_s,duration_s,split,labels\n"
        "a.wav,,1.5,train,x\na.wav,1.5,,valid,x\na.wav,3,2,test,x\n"
    )
    clips = read(write(tmp_path, text)).clips
    assert [clip.clip_id for clip in clips] == ["a.wav", "a.wav@1.5", "a.wav@3"]
    assert [(clip.start_s, clip.duration_s) for clip in clips] == [(0, 1.5), (1.5, None), (3, 2)]


def test_audio_may_lie_anywhere(tmp_path: Path) -> None:
    for folder in ("elsewhere", "lists"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "elsewhere", "")
    there = tmp_path / "elsewhere" / "c.wav"
    text = BASIC.replace("a.wav", "../elsewhere/a.wav").replace("c.wav", str(there))
    path = write(tmp_path / "lists", text)
    dataset = read(path)
    assert dataset.clips[0].path.resolve() == there.with_name("a.wav")
    assert dataset.clips[2].path == there
    text = BASIC.replace("a.wav", "elsewhere/a.wav").replace("b.wav", "lists/b.wav")
    path = write(tmp_path / "lists", text)
    (tmp_path / "d.wav").touch()
    (tmp_path / "c.wav").touch()
    assert read(path, tmp_path).clips[0].path == there.with_name("a.wav")


def test_a_table_from_a_spreadsheet(tmp_path: Path) -> None:
    """Byte order mark, Windows line ends, spaces, quotes and empty lines change nothing."""
    path = write(tmp_path, "")
    plain = BASIC.replace("\na.wav,", '\n"a.wav" , ').replace("|", " | ") + "\n\n"
    path.write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").replace('" ,', '",').encode())
    assert read(path).classes == ("cat", "dog")
    assert splits(read(path)) == splits(read(write(tmp_path, BASIC)))


# --- single-label


def test_single_label(tmp_path: Path) -> None:
    text = "path,split,labels\na.wav,train,x\nb.wav,valid,y\nc.wav,test,x\nd.wav,train,y\n"
    dataset = read(write(tmp_path, text), task="single-label")
    assert dataset.task == "single-label"
    assert all(clip.label.sum() == 1 and clip.label_mask.all() for clip in dataset.clips)


def test_in_single_label_columns_one_class_settles_the_others(tmp_path: Path) -> None:
    text = "path,split,x,y\na.wav,train,1,\nb.wav,valid,0,1\nc.wav,test,1,\nd.wav,train,,1\n"
    dataset = read(write(tmp_path, text), task="single-label")
    assert [clip.label.tolist() for clip in dataset.clips] == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert all(clip.label_mask.all() for clip in dataset.clips)


def test_two_labels_are_not_single(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match=r"line 2: expected exactly one class .* found 2"):
        read(write(tmp_path, BASIC), task="single-label")


# --- refusals


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path,", "sound,", "are: sound, split, labels; .*a.wav, train.*--path-column"),
        (",", ":", "are: path:split:labels; .*a.wav:train"),
        ("split,labels", "split,split", "unique name .* found 'split' twice in: path"),
    ],
)
def test_columns_that_cannot_be(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path, BASIC.replace(old, new)))


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are: nothing"):
        read(write(tmp_path, ""))


def test_a_file_without_rows_has_no_clips(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="no clips in train and valid and test"):
        read(write(tmp_path, "path,labels\n"), allow_missing=True)


def test_a_class_must_fit_in_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    for text in ('path,labels\na.wav,"d\rg"\n', 'path,"d\rg"\na.wav,1\n'):
        path.write_bytes(text.encode())
        with pytest.raises(UsageError, match=r"control characters .*found 'd\\rg'"):
            read(path)


@pytest.mark.parametrize("labels", ["labels", "x"])
def test_other_columns_are_ignored_and_listed(tmp_path: Path, labels: str) -> None:
    lines = [
        f"path,split,{labels},artist,year",
        *("a.wav,train,1,Bach,1720", "b.wav,valid,1,,1", "c.wav,test,1,Bach,1721"),
    ]
    dataset = read(write(tmp_path, "\n".join(lines)))
    assert dataset.classes == ("1",) if labels == "labels" else ("x",)
    assert "ignored columns: artist, year" in dataset.understood[2]


def test_a_wrong_value_in_a_class_column_is_named(tmp_path: Path) -> None:
    text = "path,dog,cat\na.wav,1,1\nb.wav,yes,1\n"
    with pytest.raises(FeatregError, match=r"line 3, column dog: expected 0, 1, .*'yes'"):
        read(write(tmp_path, text))


def test_the_group_must_be_a_column(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--group composer: .* path, split, labels"):
        read(write(tmp_path, BASIC), group="composer")


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("path,split,labels", "b.wav,sometimes,x", "line 3, column split: expected train, valid"),
        ("path,start_s,labels", "b.wav,-1,x", "line 3, column start_s: expected seconds"),
        ("path,start_s,labels", "b.wav,1:30,x", "line 3, column start_s: .* found '1:30'"),
        ("path,duration_s,labels", "b.wav,inf,x", "line 3, column duration_s: expected seconds"),
        ("path,duration_s,labels", "b.wav,0,x", "line 3, column duration_s: expected more than 0"),
        ("path,clip_id,labels", "b.wav,,x", "1 audio file not found"),
        ("path,clip_id,labels", "b.wav,a.wav,x", "column clip_id: .* 'a.wav', .* in line 2"),
        ("path,clip_id,labels", 'b.wav,"b\rc",x', "column clip_id: expected no line breaks"),
        ("path,clip_id,labels", "b.wav,b\x1fc,x", "column clip_id: expected no line breaks"),
        ("path,labels,clip_id", ",x,b", "line 3, column path: expected an audio file"),
        ("path,labels", "a.wav,x", "line 3, column path: expected a unique id, .* line 2"),
        ("path,labels", "b.wav", "line 3, column 2: expected 2 columns, found 1"),
        ("path,labels", '"b.wav,x', "line 3, column 1: "),
        ("path,labels", 'b.wav,"x', "line 3, column 2: "),
    ],
)
def test_cells_that_cannot_be(tmp_path: Path, columns: str, cells: str, message: str) -> None:
    first = {"path": "a.wav", "labels": "x"}
    row = ",".join(first.get(name, "") for name in columns.split(","))
    with pytest.raises(FeatregError, match=message):
        read(write(tmp_path, f"{columns}\n{row}\n{cells}\n", audio="a"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, BASIC, audio="abc")
    expected = f"1 audio file not found ({tmp_path / 'd.wav'} in line 5)"
    with pytest.raises(FeatregError, match=re.escape(expected)):
        read(path)
    dataset = read(path, allow_missing=True)
    assert len(dataset.clips) == 3
    assert dataset.notes == (f"mine: {expected}",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASIC.replace("c.wav,test,dog", "c.wav,test,cat"), "'dog' in train only"),
        (BASIC.replace("dog|cat", "cat"), "'dog' in test only"),
        (
            BASIC.replace("valid,cat", "valid,dog").replace("dog|cat", "x"),
            "'dog' in valid and test",
        ),
        ("path,split,x,y\na.wav,train,1,0\nb.wav,valid,1,0\nc.wav,test,1,\n", "'y' nowhere"),
    ],
)
def test_classes_that_cannot_be_learned_and_tested_are_named(
    tmp_path: Path, text: str, message: str
) -> None:
    (note,) = read(write(tmp_path, text)).notes
    assert message in note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASIC.replace("valid", "train").replace("test", "train"), "no clips in valid and test"),
        (BASIC.replace("d.wav,train", "d.wav,test"), "d.wav in test, line 5"),
        (BASIC.replace("b.wav,valid,cat", "b.wav,valid,"), "b.wav in valid, line 3"),
    ],
)
def test_splits_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(FeatregError, match=f"{message}.*--allow-missing"):
        read(path)
    assert message in read(path, allow_missing=True).notes[0]


def test_a_class_must_not_be_called_like_a_column(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class 'split'"):
        read(write(tmp_path, BASIC.replace("dog", "split")))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b"path,labels\na.wav,\0\0x\n")
    with pytest.raises(FeatregError, match="line 2: expected a text file"):
        read(path)
    with pytest.raises(FeatregError, match="cannot be read"):
        read(tmp_path / "absent.csv")


@pytest.mark.parametrize("name", ["clips.csv", "dataset.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b"clip_id\n1\n", b'{"classes": 3}'])
def test_a_list_that_is_not_as_it_was_written_is_named(
    tmp_path: Path, name: str, content: bytes
) -> None:
    folder = DatasetDir(tmp_path / "work" / "mine")
    folder.path.mkdir(parents=True)
    folder.write_dataset(read(write(tmp_path, BASIC)), ["vggish"])
    (folder.path / name).write_bytes(content)
    with pytest.raises(FeatregError, match=rf"{name}.*damaged.* `prep extract` again"):
        folder.read_dataset()


def test_the_clip_list_of_a_working_folder_is_a_manifest(tmp_path: Path) -> None:
    text = (
        "path,split,start_s,duration_s,zebra,ant\na.wav,train,,1,1,0\nb.wav,valid,2,,,1\n"
        "c.wav,test,,,1,1\nd.wav,train,,,0,1\n"
    )
    dataset = read(write(tmp_path, text))
    folder = DatasetDir(tmp_path / "work" / "mine")
    folder.path.mkdir(parents=True)
    folder.write_dataset(dataset, ["vggish"])
    again = read(folder.clips_csv)
    assert again.classes == dataset.classes
    for old, new in zip(dataset.clips, again.clips, strict=True):
        assert (old.clip_id, old.path, old.split) == (new.clip_id, new.path, new.split)
        assert (old.start_s, old.duration_s) == (new.start_s, new.duration_s)
        np.testing.assert_array_equal(old.label, new.label)
        np.testing.assert_array_equal(old.label_mask, new.label_mask)
