from __future__ import annotations

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import compose_scores as demo_scores
import numpy as np
import pytest
import render_clips as demo_render
import soundfile
from compose_scores import Note, Part, Score

from featreg.datasets.base import SPLITS, Dataset, FeatregError
from featreg.datasets.collections import demo

ROOT = demo.default_root()
SEEN, UNSEEN = demo_render.SEEN, demo_render.UNSEEN


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return demo.read(ROOT)


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    return {score.name: score for score in demo_scores.compose()}


@pytest.fixture(scope="module")
def index() -> list[dict[str, str]]:
    with (ROOT / demo.INDEX).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_as_many_clips_as_announced(dataset: Dataset) -> None:
    counts = Counter(clip.split for clip in dataset.clips)
    assert tuple(counts[split] for split in SPLITS) == demo.INFO.clips
    assert len(dataset.clips) >= 240
    assert len({clip.clip_id for clip in dataset.clips}) == len(dataset.clips)


def test_the_folder_holds_what_the_index_names_and_fits_in_8_mb(dataset: Dataset) -> None:
    others = {ROOT / demo.INDEX, ROOT / "LICENSE.md"}
    assert {clip.path for clip in dataset.clips} | others == {*ROOT.iterdir()}
    assert sum(path.stat().st_size for path in ROOT.iterdir()) <= 8_000_000


def test_one_to_four_instruments_and_enough_of_each_in_every_split(dataset: Dataset) -> None:
    for clip in dataset.clips:
        assert 1 <= clip.label.sum() <= 4, clip.clip_id
        assert clip.label_mask.all()
    for split, least in {"train": 25, "valid": 5, "test": 10}.items():
        labels = np.array([clip.label for clip in dataset.clips if clip.split == split])
        assert labels.sum(axis=0).min() >= least, split


def test_splits_share_no_score(scores: dict[str, Score], index: list[dict[str, str]]) -> None:
    splits = {(row["score"], row["split"]) for row in index}
    assert len(splits) == len(scores)
    assert len({score.parts for score in scores.values()}) == len(scores)


def test_each_test_score_sounds_in_both_fonts_and_no_other_in_the_unseen_one(
    index: list[dict[str, str]],
) -> None:
    fonts = {split: Counter(r["font"] for r in index if r["split"] == split) for split in SPLITS}
    half = demo.INFO.clips[2] // 2
    assert fonts["test"] == {SEEN.name: half, UNSEEN.name: half}
    assert {*fonts["train"], *fonts["valid"]} == {SEEN.name}


def test_the_index_says_what_the_scores_play(
    scores: dict[str, Score], index: list[dict[str, str]]
) -> None:
    for row in index:
        score = scores[row["score"]]
        assert row["split"] == score.split
        assert {part.instrument for part in score.parts} == {
            c for c in demo.CLASSES if row[c] == "1"
        }


def test_every_clip_decodes_to_sound_of_its_length(
    scores: dict[str, Score], index: list[dict[str, str]]
) -> None:
    formats = set()
    for row in index:
        signal, rate = soundfile.read(ROOT / row["path"], always_2d=True)
        formats.add((rate, signal.shape[1]))
        assert len(signal) == round(scores[row["score"]].duration_s * rate), row["path"]
        assert np.isfinite(signal).all()
        # The loudest sample was rendered between -14 and -3 dB; Vorbis moves it by 1 or 2.
        assert 0.1 < np.abs(signal).max() < 0.95, row["path"]
        # No second of it is silent: all parts play from the beginning to the end.
        seconds = signal[: len(signal) // rate * rate].reshape(-1, rate * signal.shape[1])
        assert seconds.std(axis=1).min() > 0.001, row["path"]
    assert formats == {*demo_render.FORMATS}


def test_composing_twice_gives_the_same_scores(scores: dict[str, Score]) -> None:
    assert demo_scores.compose() == (*scores.values(),)
    assert demo_scores.compose(seed=1) != (*scores.values(),)


def test_every_part_is_long_enough_to_be_recognized_and_within_its_range(
    scores: dict[str, Score],
) -> None:
    assert {*demo_scores.INSTRUMENTS} == {*demo.CLASSES} == {*SEEN.presets} == {*UNSEEN.presets}
    for score in scores.values():
        assert 5.4 <= score.duration_s <= 6.2
        for part in score.parts:
            instrument = demo_scores.INSTRUMENTS[part.instrument]
            assert len(part.notes) >= 5
            assert sum(note.length_s for note in part.notes) > 0.2 * score.duration_s
            for note in part.notes:
                assert instrument.low <= note.pitch <= instrument.high
                assert 0 <= note.start_s < note.start_s + note.length_s <= score.duration_s + 1e-3


def test_numbers_in_midi_files_are_written_as_the_standard_shows() -> None:
    # The examples of the Standard MIDI Files specification.
    examples = {0: "00", 0x40: "40", 0x7F: "7f", 0x80: "8100", 0x2000: "c000", 0x1FFFFF: "ffff7f"}
    for number, written in examples.items():
        assert demo_render._variable_length(number).hex() == written


def test_a_midi_file_byte_for_byte() -> None:
    part = Part("piano", (Note(0.0, 60, 0.5, 100), Note(0.5, 60, 0.25, 90)))
    preset = demo_render.Preset(bank=8, program=3)
    # 0.5 s is a quarter note of 480 ticks, 83 60; the first note ends before the second begins.
    track = (
        "00 b00008 00 c003 00 b00a40 00 903c64 8360 803c00 00 903c5a 8170 803c00 8170 ff2f00"
    ).replace(" ", "")
    header = "4d546864 00000006 0000 0001 01e0 4d54726b".replace(" ", "")
    expected = bytes.fromhex(f"{header}{len(track) // 2:08x}{track}")
    assert demo_render.midi_file(part, preset, 64, 1.0) == expected


def test_another_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match=r"expected index\.csv .*--root"):
        demo.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path,clip_id", "file,clip_id", "line 1, column 1: expected path,clip_id"),
        (",train,", ",training,", "line 2, column split: expected train, valid, test"),
        (",0\n", ",2\n", "expected 0 or 1 in every class"),
    ],
)
def test_a_damaged_index_is_refused_by_line_and_column(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (ROOT / demo.INDEX).read_text(encoding="utf-8")
    (tmp_path / demo.INDEX).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(FeatregError, match=message):
        demo.read(tmp_path)


@pytest.mark.parametrize("font", [SEEN, UNSEEN], ids=lambda font: font.name)
def test_rendering_a_clip_again_gives_the_shipped_one(
    scores: dict[str, Score], font: demo_render.Font
) -> None:
    if not (shutil.which("fluidsynth") and font.path.is_file()):
        pytest.skip(f"needs fluidsynth and {font.path}")
    score = next(s for s in scores.values() if s.split == "test" and len(s.parts) == 2)
    rendered, rate = demo_render.perform(score, font)
    path = ROOT / f"{demo_render.clip_name(score, font)}.ogg"
    shipped, shipped_rate = soundfile.read(path, always_2d=True)
    assert shipped_rate == rate
    # Vorbis at its lowest quality leaves an error 11 dB or more below the signal; two different
    # clips would be uncorrelated.
    assert np.corrcoef(rendered.ravel(), shipped.ravel())[0, 1] > 0.9


def test_rendering_says_which_soundfont_is_missing(scores: dict[str, Score]) -> None:
    font = replace(SEEN, path=Path("nowhere.sf2"))
    with pytest.raises(FeatregError, match=r"no soundfont nowhere\.sf2"):
        demo_render.perform(scores["s000"], font)
