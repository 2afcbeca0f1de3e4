"""The forms in which people have their labels: each is read, or refused with its option."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from label_files import splits, write

from featreg.datasets.base import Dataset, FeatregError, UsageError
from featreg.datasets.collections import registry
from featreg.datasets.collections.manifest import read

ONE = ("cat", "dog", "cat", "dog")
SPLIT_LINES = ("train", "valid", "test", "train")


def labels(dataset: Dataset) -> list[str]:
    """Classes of every clip."""
    return [
        "|".join(name for name, there in zip(dataset.classes, clip.label, strict=True) if there)
        for clip in dataset.clips
    ]


def lines(header: str, *cells: str) -> str:
    return "\n".join([header, *(f"{n}.wav{cell}" for n, cell in zip("abcd", cells, strict=True))])


PLAIN = [f",{name}" for name in ONE]
FIFTEEN = {
    "filename, label": (lines("filename,label", *PLAIN), ONE),
    "path, label": (lines("path,label", *PLAIN), ONE),
    "path, labels": (lines("path,labels", *PLAIN), ONE),
    "a fold": (
        lines("path,fold,label", *(f",{k},{name}" for k, name in enumerate(ONE, 1))),
        ONE,
    ),
    "an artist": (lines("path,artist,label", *(f",Bach,{name}" for name in ONE)), ONE),
    "semicolons": (lines("path,label", *PLAIN).replace(",", ";"), ONE),
    "tabs": (lines("path,label", *PLAIN).replace(",", "\t"), ONE),
    "0 and 1": (lines("path,cat,dog", ",1,0", ",0,1", ",1,0", ",0,1"), ONE),
    "floats": (lines("path,cat,dog", ",1.0,0.0", ",0.0,1.0", ",1.0,0.0", ",0.0,1.0"), ONE),
    "booleans": (
        lines("path,cat,dog", ",True,False", ",False,True", ",true,false", ",FALSE,TRUE"),
        ONE,
    ),
    "val": (
        lines("path,split,label", ",train,cat", ",val,dog", ",test,cat", ",train,dog"),
        ONE,
    ),
    "a path alone": ("path\na.wav\nb.wav\nc.wav\nd.wav\n", ("", "", "", "")),
    "a list in quotes": (
        lines("path,labels", ',"cat,dog"', ",cat", ",dog", ',"dog, cat"'),
        ("cat|dog", "cat", "dog", "cat|dog"),
    ),
    # The two folders are tested below.
}


@pytest.mark.parametrize("form", FIFTEEN)
def test_label_files_that_people_have(tmp_path: Path, form: str) -> None:
    text, expected = FIFTEEN[form]
    dataset = read(write(tmp_path, text), allow_missing=True)
    assert labels(dataset) == list(expected)
    assert dataset.task == ("single-label" if expected == ONE else "multi-label")
    assert len(dataset.understood) == 3
    if expected == ONE:
        assert "single-label, 2 classes: cat, dog" in dataset.understood[1]


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for name in ("dog/a.wav", "dog/deep/b.MP3", "cat/c.flac", "d.ogg", "notes.txt", ".x/e.wav"):
        file = tmp_path / "sounds" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    dataset = registry.read(f"{tmp_path}/sounds", None, work=tmp_path, allow_missing=True)
    assert dataset.name == "sounds"
    assert dict(zip(splits(dataset), labels(dataset), strict=True)) == {
        "cat/c.flac": "cat", "d.ogg": "", "dog/a.wav": "dog", "dog/deep/b.MP3": "dog",
    }  # fmt: skip
    assert dataset.clips[0].path == tmp_path / "sounds" / "cat" / "c.flac"
    assert dataset.clips[1].split == "train"
    assert "notes.txt" in dataset.understood[0]


def test_folders_named_as_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a.wav").touch()
    dataset = read(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert list(splits(dataset).values()) == ["test", "test", "train", "train", "valid", "valid"]


def test_a_folder_of_audio_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "")
    dataset = read(tmp_path)
    assert (len(dataset.clips), dataset.classes) == (4, ())
    assert {clip.split for clip in dataset.clips} == {"train"}
    assert dataset.clips[0].label_mask.shape == (0,)
    assert "no labels" in dataset.understood[1]


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(FeatregError, match=r"no audio files .*found notes\.md"):
        read(tmp_path)


def test_json_lines(tmp_path: Path) -> None:
    write(tmp_path, "")
    path = tmp_path / "mine.jsonl"
    records = [
        {"audio": "a.wav", "tags": ["dog", "cat"], "bpm": 120},
        {"audio": "b.wav", "tags": ["cat"], "more": {"x": 1}},
        {"audio": "c.wav", "tags": None},
    ]
    path.write_text("\n\n".join(map(json.dumps, records)) + "\n")
    dataset = read(path, allow_missing=True)
    assert labels(dataset) == ["cat|dog", "cat", ""]
    assert dataset.clips[2].label_mask.tolist() == [0, 0]
    assert "bpm, more" in dataset.understood[2]
    for bad in ("{", "3", "[" * 100_000):
        path.write_text(f'{{"path": "a.wav"}}\n{bad}\n')
        with pytest.raises(FeatregError, match="line 2: expected a JSON object"):
            read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be",
                                      "latin-1", "cp1252"])  # fmt: skip
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "")
    path.write_bytes("path;label\r\na.wav;Flöte\r\nb.wav;Tänze\r\n".encode(encoding))
    assert read(path, allow_missing=True).classes == ("Flöte", "Tänze")


def test_what_pandas_writes_with_an_index(tmp_path: Path) -> None:
    text = ",file,label\n0,a.wav,cat\n1,b.wav,dog\n2,c.wav,cat\n"
    dataset = read(write(tmp_path, text), allow_missing=True)
    assert labels(dataset) == ["cat", "dog", "cat"]
    assert "ignored columns: column 1" in dataset.understood[2]


def test_names_without_a_suffix_and_with_backslashes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.wav").touch()
    path = write(tmp_path, "fname,label\na,cat\nsub\\x.wav,dog\nsub/x,cat\n")
    dataset = read(path, allow_missing=True)
    assert [clip.path.relative_to(tmp_path).as_posix() for clip in dataset.clips] == [
        "a.wav", "sub/x.wav", "sub/x.wav",
    ]  # fmt: skip


# --- columns and options


def test_columns_can_be_named(tmp_path: Path) -> None:
    text = "sound,genre,path,part,round\n" + "\n".join(
        f"{name}.wav,{label},nowhere,{split},{k}"
        for k, (name, label, split) in enumerate(zip("abcd", ONE, SPLIT_LINES, strict=True))
    )
    dataset = read(
        write(tmp_path, text),
        path_column="sound",
        label_column="genre",
        split_column="part",
        fold_column="round",
    )
    assert labels(dataset) == list(ONE)
    assert list(splits(dataset).values()) == list(SPLIT_LINES)
    assert [clip.fold for clip in dataset.clips] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,label\n", {"label_column": "genre"}, "--label-column genre: .*are: file, label"),
        ("file,filename,label\n", {}, "file and filename; .*--path-column"),
        ("path,class,category\n", {}, "class and category; .*--label-column"),
        ("a.wav,cat\nb.wav,dog\n", {}, "are: a.wav, cat; .*b.wav, dog.*--path-column"),
        ("path,label,label\n", {}, "'label' twice"),
    ],
)
def test_columns_that_are_unclear_are_refused_with_the_option(
    tmp_path: Path, text: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path, text), **options)


def test_a_column_may_mean_something_else(tmp_path: Path) -> None:
    """A subset and a fold that are no split and no number are ignored."""
    text = "path,subset,folds,label\na.wav,small,x,cat\nb.wav,large,y,dog\n"
    dataset = read(write(tmp_path, text), allow_missing=True)
    assert "ignored columns: subset, folds" in dataset.understood[2]


def test_unused_columns_of_a_file_without_labels_are_noted(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, lines("path,genre", *PLAIN)))
    assert dataset.classes == ()
    assert "genre ignored" in dataset.notes[0]
    assert "--label-column" in dataset.notes[0]


def test_the_separator_can_be_given(tmp_path: Path) -> None:
    text = lines("path,label", ',"Dog, barking"', ",Cat", ',"Dog, barking"', ",Cat")
    path = write(tmp_path, text)
    assert read(path, allow_missing=True).classes == ("Cat", "Dog", "barking")
    assert read(path, label_separator="", allow_missing=True).classes == ("Cat", "Dog, barking")
    path.write_text(lines("path,label", ",Dog/Cat", ",Cat", ",Dog", ",Cat"))
    assert read(path, label_separator="/", allow_missing=True).classes == ("Cat", "Dog")


def test_mixed_separators_are_named(tmp_path: Path) -> None:
    text = lines("path,labels", ",cat|dog", ",cat", ',"cat,dog"', ",dog")
    with pytest.raises(FeatregError, match=r"line 4, column labels: expected one .*cat,d"):
        read(write(tmp_path, text))


def test_the_task_can_be_given(tmp_path: Path) -> None:
    text = lines("path,split,label", *(f",{s},{n}" for s, n in zip(SPLIT_LINES, ONE, strict=True)))
    path = write(tmp_path, text)
    assert read(path).task == "single-label"
    assert read(path, task="multi-label").task == "multi-label"


def test_one_class_is_not_single_label(tmp_path: Path) -> None:
    path = write(tmp_path, lines("path,label", *(",cat",) * 4))
    assert read(path, allow_missing=True).task == "multi-label"


def test_a_clip_list_has_classes_of_any_name(tmp_path: Path) -> None:
    text = "clip_id,path,split,start_s,duration_s,label,tags\n" + "\n".join(
        f"{name},{name}.wav,{split},0,1,{k % 2},1"
        for k, (name, split) in enumerate(zip("abcd", SPLIT_LINES, strict=True))
    )
    assert read(write(tmp_path, text)).classes == ("label", "tags")


def test_duplicate_paths_are_named(tmp_path: Path) -> None:
    text = "file,label\na.wav,cat\nb.wav,cat\na.wav,dog\n"
    message = re.escape("line 4, column file: expected a unique id, found 'a.wav', which is also")
    with pytest.raises(FeatregError, match=message):
        read(write(tmp_path, text))
