"""The user's own clips, and the one-second clips of Speech Commands, from audio to a result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kit import tone, write
from miniatures import write_speech

from featreg.datasets.shards.aligned import AlignedIndex, read_index
from featreg.extract.cli.prep import prep
from featreg.train.cli.train import train

CLIPS = {"train": 6, "valid": 4, "test": 4}
SMALL = "--encoder mel_cnn --width 2 --crop 1 --epochs 1 --batch-size 3 --chunks 2"

# Cells of a clip by its number. An empty one is not annotated; in valid and test, the first one
# takes the place of a clip without any label.
MANIFESTS: dict[str, tuple[str, list[str]]] = {
    "multi-label": ("labels", ["low|loud", "high", "low", "high|loud"]),
    "single-label": ("labels", ["low", "high", ""]),
    "masked": ("low,high,loud", ["1,0,", "0,1,1", "1,,0", "0,1,"]),
}


def run(work: Path, line: str, *more: str) -> Result:
    command, *words = line.split()
    group = {"prep": prep, "train": train}[command]
    return CliRunner().invoke(group, [*words, "--work", str(work), *more])


def write_manifest(folder: Path, kind: str) -> Path:
    """A CSV file of fourteen tones in the form `kind`; masked labels come with excerpts."""
    columns, cells = MANIFESTS[kind]
    excerpts = kind == "masked"
    lines = [f"path,split,{'start_s,duration_s,' if excerpts else ''}{columns}"]
    for split, count in CLIPS.items():
        for k in range(count):
            name = f"{split}{k}.wav"
            write(folder / name, tone(1.2, 16000, seed=k), 16000)
            where = "0.1,1.0," if excerpts else ""
            cell = cells[k % len(cells)] or ("" if split == "train" else cells[0])
            lines.append(f"{name},{split},{where}{cell}")
    path = folder / "mine.csv"
    path.write_text("\n".join(lines))
    return path


def results(work: Path) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    """Configuration, report and predictions of the only run."""
    (folder,) = (work / "runs").iterdir()
    about, report = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("config", "report")
    )
    table = pd.read_csv(folder / "predictions.csv", index_col="clip_id")
    return about, report, table[about["data"]["classes"]]


def aligned(work: Path) -> AlignedIndex:
    return read_index(work / "mine" / "aligned" / "musicnn-0.1s" / "00000.h5")


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("multi-label", "--fusion film"),
        ("single-label", "--reg conreg"),
        ("masked", "--reg disreg"),
    ],
)
def test_a_manifest_goes_all_the_way(tmp_path: Path, kind: str, method: str) -> None:
    path, work = write_manifest(tmp_path, kind), tmp_path / "work"
    task = "single-label" if kind == "single-label" else "multi-label"
    for line in (
        f"prep extract --dataset {path} --task {task} --features musicnn --workers 1",
        "prep align --resolution 0.1 --workers 1",
        f"train run {method} {SMALL}",
    ):
        done = run(work, line)
        assert done.exit_code == 0, done.output

    about, report, predictions = results(work)
    index = aligned(work)
    tested = [k for k, split in enumerate(index.split) if split == "test"]
    assert about["data"]["task"] == index.header.task == task
    assert about["config"]["metric"] == ("accuracy" if task == "single-label" else "pr_auc")
    assert about["data"]["clips"] == {**CLIPS, "train": 4 if kind == "single-label" else 6}
    assert list(predictions.columns) == list(index.header.classes)
    assert sorted(predictions.index) == sorted(index.clip_id[k] for k in tested)
    assert all(0 <= value <= 1 for value in report["test"].values())
    if kind == "single-label":
        assert index.label[tested].tolist() == [[0, 1], [1, 0], [0, 1], [0, 1]]
        assert index.label_mask[tested].all()
        trained = [k for k, split in enumerate(index.split) if split == "train"]
        assert index.label_mask[trained, 0].tolist() == [1, 1, 0, 1, 1, 0]
        assert [each["annotated"] for each in report["classes"]] == [4, 4]
        # 1e-5: six decimals are written, of two classes
        assert np.abs(predictions.sum(axis=1) - 1).max() < 1e-5
    elif kind == "multi-label":
        assert index.header.classes == ("high", "loud", "low")
        assert index.label[tested].tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0]]
        assert index.label_mask.all()
    else:
        assert index.header.classes == ("low", "high", "loud")
        assert index.label[tested].tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]]
        assert index.label_mask[tested].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 0]]
        assert index.duration_s[tested].tolist() == [1.0] * 4
        scores = {each["name"]: each for each in report["classes"]}
        assert [scores[name]["annotated"] for name in ("low", "high", "loud")] == [4, 3, 2]


def test_a_folder_without_labels_is_extracted_and_aligned(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "field"
    for k in range(3):
        write(folder / f"{k}.wav", tone(1.2, 16000, seed=k), 16000)
    for line in (
        f"prep extract --dataset {folder} --features musicnn --workers 1",
        "prep align --resolution 0.1 --workers 1",
        f"prep verify {work}/field",
        f"prep inspect {work}/field/aligned/musicnn-0.1s/00000.h5",
    ):
        done = CliRunner().invoke(prep, line.split()[1:], env={"FEATREG_WORK": str(work)})
        assert done.exit_code == 0, done.output
    index = read_index(work / "field" / "aligned" / "musicnn-0.1s" / "00000.h5")
    assert (index.header.classes, index.split) == ((), ("train",) * 3)
    assert index.label.shape == index.label_mask.shape == (3, 0)
    refused = run(work, f"train run --reg none {SMALL}")
    assert refused.exit_code == 1
    assert "error: " in refused.output


def test_speech_commands_is_trained_as_published(tmp_path: Path) -> None:
    """Two words in miniature; the width and one epoch apart, the preset is what it is."""
    root, work = tmp_path / "speech", tmp_path / "work"
    files = {
        f"{word}/{k}{k}_nohash_0.wav": listed
        for word in ("yes", "no")
        for k, listed in enumerate(
            [*[""] * 4, *["validation_list.txt"] * 2, *["testing_list.txt"] * 2]
        )
    }
    root.mkdir()
    write_speech(root, files)
    for number, file in enumerate(files):
        # One in ten of the real recordings is shorter than a second.
        write(root / file, tone(0.7 if number == 1 else 1.0, 16000, seed=number), 16000)
    words = f"--dataset speech_commands --root {root} --allow-missing"
    for line in (
        f"prep extract {words} --features musicnn --workers 1",
        "prep align --resolution 0.1 --workers 1",
        "train run --reg conreg --width 4 --epochs 1 --batch-size 4",
    ):
        done = run(work, line)
        assert done.exit_code == 0, done.output

    about, report, predictions = results(work)
    assert about["config"]["preset"] == "speech_commands"
    assert about["config"]["metric"] == "accuracy"
    recipe = about["config"]["recipe"]
    assert recipe["encoder_options"] == {"time_pools": [2, 1], "pad_to": 16128}
    assert recipe["crop_s"] == 1.0
    assert report["test"]["accuracy"] in {0.0, 0.25, 0.5, 0.75, 1.0}
    assert predictions.shape == (4, 35)
    # 35 values of six decimals
    assert np.abs(predictions.sum(axis=1) - 1).max() < 2e-5


def test_what_is_missing_is_said_wherever_results_are(tmp_path: Path) -> None:
    path, work = write_manifest(tmp_path, "multi-label"), tmp_path / "work"
    (tmp_path / "train5.wav").unlink()
    note = f"mine: 1 audio file not found ({tmp_path / 'train5.wav'} in line 7)"
    refused = run(work, f"prep extract --dataset {path} --features musicnn --workers 1")
    assert refused.exit_code == 1
    assert "--allow-missing" in refused.output
    for line in (
        f"prep datasets {path} --allow-missing",
        f"prep extract --dataset {path} --features musicnn --workers 1 --allow-missing",
        "prep align --resolution 0.1 --workers 1",
        f"train run --reg none {SMALL}",
        "train compare",
    ):
        done = run(work, line)
        assert done.exit_code == 0, done.output
        assert note in done.output.replace("\n", ""), line
    assert aligned(work).header.notes == (note,)
    shard = work / "mine" / "aligned" / "musicnn-0.1s" / "00000.h5"
    assert note in CliRunner().invoke(prep, ["inspect", str(shard)]).output
    assert results(work)[0]["data"]["notes"] == [note]
    assert note in (work / "reports" / "mine.html").read_text()


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("sound,labels\na.wav,x\n", 2, "--path-column"),
        ("path,clip_id,labels\na.wav,1,x\nb.wav,1,x\n", 1, "'1', which is also in line 2"),
        ("path,labels\na.wav,x\nnowhere.wav,x\n", 1, "1 audio file not found"),
        ("path,split,labels\na.wav,train,x\nb.wav,valid,\nc.wav,test,\n", 1, "2 clips without"),
        ("path,split,x\na.wav,train,1\nb.wav,valid,1\nc.wav,train,0\n", 1, "no clips in test"),
        ("path,x\na.wav,1\nb.wav,2\n", 1, "line 3, column x: expected 0, 1, true"),
        ("path,labels\na.wav\n", 1, "line 2, column 2: expected 2 columns, found 1"),
        ('path,labels\n"a.wav,x\n', 1, "line 2, column 1: "),
        ("path,start_s,labels\na.wav,soon,x\n", 1, "line 2, column start_s: expected seconds"),
    ],
)
def test_what_a_manifest_cannot_say_is_one_line_and_a_status(
    tmp_path: Path, text: str, status: int, message: str
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.wav").touch()
    path = tmp_path / "mine.csv"
    path.write_text(text)
    for line in (f"extract --dataset {path} --features audio", f"datasets {path}"):
        done = run(tmp_path / "work", f"prep {line}")
        assert done.exit_code == status
        errors = [each for each in done.output.splitlines() if each.startswith("error: ")]
        assert len(errors) == 1
        assert re.search(re.escape(str(path)) + ".*" + re.escape(message), errors[0])
    # Nothing is half-read: no clip list was written.
    assert not (tmp_path / "work" / "mine" / "clips.csv").exists()
