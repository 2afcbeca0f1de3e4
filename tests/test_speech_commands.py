from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from miniatures import SPEECH_FILES, write_speech

from featreg.datasets.base import FeatregError
from featreg.datasets.collections import speech_commands


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The miniature, as if it were the published dataset."""
    monkeypatch.setattr(speech_commands, "INFO", replace(speech_commands.INFO, clips=(3, 1, 1)))
    write_speech(tmp_path, SPEECH_FILES)
    return tmp_path


def test_the_lists_are_the_split_and_the_folder_is_the_label(root: Path) -> None:
    dataset = speech_commands.read(root)
    assert dataset.task == "single-label"
    assert [(clip.clip_id, clip.split) for clip in dataset.clips] == [
        ("no/00aa_nohash_0", "train"),
        ("no/11bb_nohash_0", "valid"),
        ("yes/00aa_nohash_0", "train"),
        ("yes/00aa_nohash_1", "train"),
        ("zero/22cc_nohash_0", "test"),
    ]
    for clip in dataset.clips:
        assert clip.label.sum() == 1
        assert dataset.classes[clip.label.argmax()] == clip.path.parent.name
        assert clip.label_mask.all()


def test_a_listed_recording_that_is_missing_is_named(root: Path) -> None:
    (root / "zero/22cc_nohash_0.wav").unlink()
    expected = re.escape("1 without an audio file (zero/22cc_nohash_0.wav)")
    with pytest.raises(FeatregError, match=expected):
        speech_commands.read(root)
    assert re.search(expected, speech_commands.read(root, allow_missing=True).notes[0])


def test_a_training_recording_that_is_missing_is_counted(root: Path) -> None:
    (root / "no/00aa_nohash_0.wav").unlink()
    with pytest.raises(FeatregError, match=r"2 / 1 / 1 clips .* expected 3 / 1 / 1"):
        speech_commands.read(root)


def test_a_damaged_list_is_named_by_line(root: Path) -> None:
    (root / "testing_list.txt").write_text("zero/22cc_nohash_0.wav\nmaybe/22cc_nohash_0.wav\n")
    with pytest.raises(FeatregError, match=r"testing_list.txt, line 2, column 1: expected a path"):
        speech_commands.read(root)


def test_a_wrong_root_says_what_was_expected_and_found(root: Path) -> None:
    (root / "testing_list.txt").unlink()
    with pytest.raises(FeatregError, match=r"expected validation_list.txt, testing_list.txt and"):
        speech_commands.read(root)
