from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from miniatures import MTAT_CLIPS, write_mtat

from featreg.datasets.base import FeatregError
from featreg.datasets.collections import mtat


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The miniature, as if it were the published dataset."""
    monkeypatch.setattr(mtat, "INFO", replace(mtat.INFO, clips=(2, 1, 1)))
    monkeypatch.setattr(mtat, "ALL_CLIPS", (2, 2, 1))
    write_mtat(tmp_path, MTAT_CLIPS)
    return tmp_path


def test_clips_with_a_top_tag_in_their_folder_s_split(root: Path) -> None:
    dataset = mtat.read(root)
    found = {clip.clip_id: (clip.split, clip.path) for clip in dataset.clips}
    assert found == {
        "2": ("test", root / "mp3/f/artist-album-01-song-0-29.mp3"),
        "6": ("train", root / "mp3/0/artist-album-02-other_song-0-29.mp3"),
        "10": ("train", root / "mp3/b/other-album-03-third-29-58.mp3"),
        "11": ("valid", root / "mp3/c/fourth-album-01-a_song-0-29.mp3"),
    }
    assert dataset.known_bad == ("35644", "55753", "57881")
    assert dataset.notes == ()


def test_labels_are_the_top_50_in_their_order(root: Path) -> None:
    for clip in mtat.read(root).clips:
        tags = [tag for tag, value in zip(mtat.TAGS, clip.label, strict=True) if value]
        assert tags == [tag for tag in mtat.TAGS if tag in MTAT_CLIPS[clip.clip_id][1]]
        assert clip.label_mask.all()


def test_untagged_clips_are_kept_on_request(root: Path) -> None:
    dataset = mtat.read(root, all_clips=True)
    assert [clip.clip_id for clip in dataset.clips] == ["2", "6", "10", "11", "22"]
    assert not dataset.clips[-1].label.any()
    assert dataset.clips[-1].label_mask.all()


def test_the_audio_may_lie_in_the_root(tmp_path: Path) -> None:
    write_mtat(tmp_path, MTAT_CLIPS, audio=".")
    paths = [clip.path for clip in mtat.read(tmp_path, allow_missing=True).clips]
    assert tmp_path / "f/artist-album-01-song-0-29.mp3" in paths


def test_a_missing_file_is_named(root: Path) -> None:
    (root / "mp3/0/artist-album-02-other_song-0-29.mp3").unlink()
    expected = (
        "1 / 1 / 1 clips (training / validation / test), expected 2 / 1 / 1 as published; "
        "1 without an audio file (0/artist-album-02-other_song-0-29.mp3)"
    )
    with pytest.raises(FeatregError, match=re.escape(expected)):
        mtat.read(root)
    dataset = mtat.read(root, allow_missing=True)
    assert len(dataset.clips) == 3
    assert dataset.notes == (f"mtat: {expected}",)


def test_other_counts_are_an_error_though_every_file_is_there(root: Path) -> None:
    write_mtat(root, {key: clip for key, clip in MTAT_CLIPS.items() if key != "6"})
    with pytest.raises(FeatregError, match=r"1 / 1 / 1 clips .* expected 2 / 1 / 1"):
        mtat.read(root)


@pytest.mark.parametrize("kept", ["labels", "audio", "nothing"])
def test_a_wrong_root_says_what_was_expected_and_found(root: Path, kept: str) -> None:
    if kept != "labels":
        (root / mtat.LABEL_FILE).rename(root / "labels.csv")
    if kept != "audio":
        (root / "mp3").rename(root / "music")
    found = ", ".join(sorted(path.name for path in root.iterdir()))
    with pytest.raises(FeatregError, match=rf"expected annotations_final.csv and .* found {found}"):
        mtat.read(root, allow_missing=True)


def test_an_absent_root_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="found no such folder"):
        mtat.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"10"\t"0"', '"10"\t"2"', "line 4, column guitar: expected 0 or 1, found '2'"),
        ('"10"\t"0"\t', '"10"\t', "line 4, column 53: expected 53 columns, found 52"),
        ('"10"', '"6"', "line 4, column clip_id: .* found '6'"),
        ('"10"', '"ten"', "line 4, column clip_id: expected a unique number, found 'ten'"),
        ("b/other", "g/other", "line 4, column mp3_path: expected a path like .* found 'g/other"),
        ("b/other", "b/../other", "line 4, column mp3_path"),
        ('third-29-58.mp3"', "third-29-58.mp3", "line 4, column 53: "),
        ('"10"\t"0"', '"10"\t"0"1', "line 4, column 2: "),
        ('"clip_id"', '"id"', "line 1, column 1: expected the columns clip_id"),
        ('"choral"', '"coral"', "line 1, column 1: expected .* top 50"),
        ("third", "th\udcffird", "line 4, character .* expected UTF-8 text, found the byte 0xff"),
    ],
)
def test_damage_is_named_by_line_and_column(root: Path, old: str, new: str, message: str) -> None:
    path = root / mtat.LABEL_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1), errors="surrogateescape")
    with pytest.raises(FeatregError, match=f"^{re.escape(str(path))}, {message}"):
        mtat.read(root, allow_missing=True)


def test_an_empty_label_file_is_damaged(root: Path) -> None:
    (root / mtat.LABEL_FILE).write_text("")
    with pytest.raises(FeatregError, match="found an empty file"):
        mtat.read(root)


def test_tags_with_other_counts_are_not_the_published_ones(root: Path) -> None:
    write_mtat(root, {**MTAT_CLIPS, "22": ("c/fourth-album-01-a_song-29-58.mp3", ("bells",))})
    expected = "annotations_final.csv is not the published one: 'bells' (1 clips) is more frequent"
    with pytest.raises(FeatregError, match=re.escape(expected)):
        mtat.read(root)
    assert expected in mtat.read(root, allow_missing=True).notes[0]


def test_the_real_lists(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real labels of validation and test; of train the real clips, with a made-up tag."""
    source = shared / "data" / "mtat"
    published = {
        split: (source / f"{split}_clips.txt").read_text().splitlines()
        for split in ("train", "valid", "test")
    }
    tags = (source / "top50_tags.txt").read_text().splitlines()
    assert list(mtat.TAGS) == tags
    with (source / "annotations_valid_test.csv").open(newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    for number, path in enumerate(published["train"]):
        row = [str(100_000 + number), *"0" * (len(header) - 2), path]
        row[header.index("guitar")] = "1"
        rows.append(row)
    with (tmp_path / mtat.LABEL_FILE).open("w", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    present: dict[str, set[str]] = {folder: set() for folder in mtat.SPLIT_OF_FOLDER}
    for row in rows:
        folder, _, name = row[-1].partition("/")
        present[folder].add(name)
    monkeypatch.setattr(mtat, "names_in", lambda folder: present[folder.name])

    dataset = mtat.read(tmp_path)
    assert dataset.notes == ()
    counts = Counter(clip.split for clip in dataset.clips)
    assert counts == {"train": 15_244, "valid": 1_529, "test": 4_332}
    for split, paths in published.items():
        found = {"/".join(c.path.parts[-2:]) for c in dataset.clips if c.split == split}
        assert found == set(paths)
    columns = [header.index(tag) for tag in tags]
    labels = {row[0]: [int(row[column]) for column in columns] for row in rows}
    assert all(clip.label.tolist() == labels[clip.clip_id] for clip in dataset.clips)
    songs = {
        split: {re.sub(r"-\d+-\d+\.mp3$", "", path.partition("/")[2]) for path in paths}
        for split, paths in published.items()
    }
    assert not songs["train"] & songs["valid"]
    assert not (songs["train"] | songs["valid"]) & songs["test"]
