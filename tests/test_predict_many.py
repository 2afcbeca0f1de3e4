"""`train predict` on many and on long files: resumed, in pieces, with labels of Audacity."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from kit import tone, write
from synthetic import RATE
from toy_runs import CLASSES, call, noise

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.audio.pcm16 import to_pcm16
from featreg.datasets.base import Clip, FeatregError
from featreg.train.cli.train import train
from featreg.train.deploy import decode_ahead, recording, tags_csv
from featreg.train.deploy.classifier import Classifier
from featreg.train.deploy.model_file import read_model, write_model
from featreg.train.deploy.recording import LONGEST_S, Wanted, read_recording, recording_of
from featreg.train.deploy.tag_files import Tagged
from featreg.train.deploy.write_tags import to_audacity
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def audio(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"in/{k}.wav", noise(1.3, seed=k), RATE) for k in range(4)]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def predict(work: Path, output: Path, *arguments: str | Path) -> Result:
    return call(work, "predict", *arguments, "--run", "trained", "-o", output)


# A CSV that grows


@pytest.mark.parametrize("hop", [(), ("--hop", "0.2")])
def test_a_stopped_run_is_resumed_at_any_byte(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path, hop: tuple[str, ...]
) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "new/scores.csv"
    assert predict(work, whole, *audio, *hop).exit_code == 0
    content = whole.read_bytes()
    assert len(table(whole)) == 1 + len(audio) * (3 if hop else 1)
    lines = [k + 1 for k, byte in enumerate(content) if byte == ord("\n")]
    for end in (0, 3, lines[0], lines[0] + 2, lines[1], lines[1] + 9, lines[2], len(content)):
        output.parent.mkdir(exist_ok=True)
        output.write_bytes(content[:end])
        result = predict(work, output, *audio, *hop)
        assert result.exit_code == 0, result.output
        assert output.read_bytes() == content


def test_files_that_are_there_are_skipped(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "scores.csv"
    assert predict(work, output, *audio[:3]).exit_code == 0
    before = output.read_bytes()
    audio[0].unlink()  # not even opened
    result = predict(work, output, *audio, audio[3])
    assert result.exit_code == 0, result.output
    assert "1 file to add, 3 already there" in result.output
    assert output.read_bytes().startswith(before)
    assert [row[0] for row in table(output)[1:]] == [str(path) for path in audio]


def test_a_bad_file_is_named_and_tried_again(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path
) -> None:
    output, good = tmp_path / "scores.csv", audio[1].read_bytes()
    audio[1].write_bytes(good[:100])
    result = predict(work, output, tmp_path / "in")
    assert result.exit_code == 1
    assert str(audio[1]) in result.stderr
    assert len(table(output)) == 4
    audio[1].write_bytes(good)
    assert predict(work, output, tmp_path / "in").exit_code == 0
    assert len(table(output)) == 5


def test_scores_of_another_model_are_not_mixed_in(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "scores.csv"
    assert predict(work, output, *audio[:2], "--hop", "0.2").exit_code == 0
    before = output.read_bytes()
    tagger, card = read_model(trained.path / "model.safetensors")
    tagger.decoder.fc_2.bias.data += 1  # type: ignore[union-attr, operator]
    write_model(other := tmp_path / "other.safetensors", tagger, card)
    names = tuple(f"{name}2" for name in card.classes)
    write_model(named := tmp_path / "named.safetensors", tagger, replace(card, classes=names))
    for arguments in (
        ("--run", other, "--hop", "0.2"),
        ("--run", named, "--hop", "0.2"),
        ("--run", trained.path, "--hop", "0.1"),
        ("--run", trained.path),
    ):
        result = call(work, "predict", *audio, *arguments, "-o", output)
        assert result.exit_code == 2
        assert str(output) in result.stderr
        assert output.read_bytes() == before


@pytest.mark.parametrize("content", ["a shopping list", "a,b\n1,2\n", "file,low\nx,1\n"])
def test_another_file_is_left_alone(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path, content: str
) -> None:
    output = tmp_path / "notes.csv"
    output.write_text(content)
    result = predict(work, output, *audio)
    assert result.exit_code == 2
    assert str(output) in result.stderr
    assert output.read_text() == content


def test_a_damaged_line_is_named(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "scores.csv"
    assert predict(work, output, *audio).exit_code == 0
    lines = output.read_text().splitlines()
    lines[2] = lines[2].rpartition(",")[0]
    output.write_text("\n".join(lines) + "\n")
    result = predict(work, output, *audio)
    assert result.exit_code == 2
    assert "line 3 has 3 columns, expected 4" in result.stderr


def test_two_commands_do_not_write_at_once(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    output = tmp_path / "scores.csv"
    with output.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = predict(work, output, *audio)
    assert result.exit_code == 1
    assert "another command" in result.stderr


def test_a_full_disk_leaves_whole_lines(
    work: Path,
    trained: RunDir,
    audio: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, write_some, count = tmp_path / "scores.csv", os.write, 0

    def fail(descriptor: int, content: bytes) -> int:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_some(descriptor, content[: 100 if count == 1 else 20])

    monkeypatch.setattr(tags_csv, "os", SimpleNamespace(**vars(os) | {"write": fail}))
    result = predict(work, output, *audio)
    assert result.exit_code == 1
    assert f"{output}: cannot be written (No space left on device)" in result.stderr
    assert len(table(output)) == 2
    assert output.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "table", "-o", "x"),
        ("--min-score", "0.3"),
        ("--format", "audacity", "--top", "1"),
        ("-o", "."),
        ("-o", "/dev/null"),
        ("--format", "audacity", "-o", "setup.py"),
    ],
)
def test_options_that_exclude_each_other(
    work: Path, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").touch()
    result = call(work, "predict", "a.wav", *arguments)
    assert result.exit_code == 2
    assert arguments[-2] in result.stderr


# Paths from standard input


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_paths_are_read_from_standard_input(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path, end: str
) -> None:
    listed = [*map(str, audio[:2]), "", str(tmp_path / "nowhere.wav"), str(audio[3])]
    line = ["predict", "-", "--run", "trained", "--format", "csv", "--work", str(work)]
    result = CliRunner().invoke(train, line, input=end.join(listed))
    assert result.exit_code == 1
    found = [row[0] for row in csv.reader(result.stdout.splitlines())]
    assert found == ["file", str(audio[0]), str(audio[1]), str(audio[3])]
    assert f"no file {tmp_path / 'nowhere.wav'}" in result.stderr
    assert "1 of 4 files failed" in result.stderr


# Labels of Audacity


def test_labels_are_the_stretches_above_the_score() -> None:
    def tagged(start: float, *probability: float) -> Tagged:
        return Tagged(Path("a.wav"), np.array(probability, np.float32), start, start + 1)

    found = [tagged(0, 0.9, 0.1), tagged(0.5, 0.6, 0.7), tagged(1, 0.2, 0.8), tagged(1.5, 0.5, 0)]
    assert to_audacity(found, ("a\tb", "c"), 0.5) == (
        "0.000000\t1.500000\ta b 0.90\n0.500000\t2.000000\tc 0.80\n1.500000\t2.500000\ta b 0.50\n"
    )
    apart = [tagged(0, 0.9, 0), tagged(3, 0.8, 0)]
    assert to_audacity(apart, ("a", "c"), 0.5).splitlines() == [
        "0.000000\t1.000000\ta 0.90",
        "3.000000\t4.000000\ta 0.80",
    ]
    assert to_audacity(apart, ("a", "c"), 0.95) == ""


def test_each_file_has_its_labels(
    work: Path, trained: RunDir, audio: list[Path], tmp_path: Path
) -> None:
    write(tmp_path / "in/deep/0.wav", noise(1.0), RATE)
    options = ("--format", "audacity", "--hop", "0.5", "--min-score", "0")
    result = predict(work, tmp_path / "labels", tmp_path / "in", *options)
    assert result.exit_code == 0, result.output
    files = {str(p.relative_to(tmp_path / "labels")) for p in (tmp_path / "labels").rglob("*.txt")}
    assert files == {*(f"{k}.wav.txt" for k in range(4)), "deep/0.wav.txt"}
    lines = (tmp_path / "labels/0.wav.txt").read_text().splitlines()
    assert len(lines) == len(CLASSES)  # all of them all the time
    assert all(line.startswith("0.000000\t1.300000\t") for line in lines)
    shown = call(work, "predict", audio[0], "--run", "trained", *options)
    assert shown.stdout.splitlines() == lines
    several = call(work, "predict", *audio, "--run", "trained", *options)
    assert several.exit_code == 2
    assert "--output" in several.stderr
    alike = predict(work, tmp_path / "l", audio[0], tmp_path / "in/deep/0.wav", *options)
    assert alike.exit_code == 2
    assert "0.wav.txt" in alike.stderr


# Long files


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("seconds", [3.0, 6.21, 7.0])
def test_pieces_give_the_samples_of_the_whole(
    name: str, rate: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_PIECE_S", 2)
    path = write(tmp_path / name, tone(seconds, rate, 2), rate)
    nothing = np.empty(0, np.uint8)
    signal, _ = decode(Clip("a", path, "test", nothing, nothing))
    found = read_recording(path, Wanted(RATE, "soxr_hq"))
    assert found.duration_s == len(signal) / rate
    expected = to_pcm16(resample(signal, rate, RATE))
    assert len(found.audio) == len(expected)
    # The resampler's filter ends within the margin; a rounding may fall the other way.
    assert np.abs(found.audio.astype(int) - expected).max() <= 1


def test_a_file_that_breaks_off_in_a_later_piece_is_an_error(
    work: Path, trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_PIECE_S", 2)
    path = write(tmp_path / "a.wav", tone(7.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[:-RATE])
    with pytest.raises(FeatregError, match=r"a\.wav breaks off"):
        read_recording(path, Wanted(RATE, "soxr_hq"))


def test_the_longest_audio_is_named() -> None:
    signal = np.zeros(int(LONGEST_S * 1000) + 1000, np.float32)
    with pytest.raises(FeatregError, match="12 h"):
        recording_of(signal, 1000, Wanted(RATE, "soxr_hq"))
    with pytest.raises(FeatregError, match="4 h"):
        recording_of(signal, 1000, Wanted(RATE, "soxr_hq", ((RATE, "soxr_hq"),)))


def test_one_large_file_is_in_memory_at_a_time(
    model: Classifier, audio: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_ahead, "_is_large", lambda file: file.name in ("1.wav", "2.wav"))
    decoded: list[str] = []
    whole = decode_ahead._decoders().decode

    def watched(file: Path, wanted: Wanted) -> object:
        decoded.append(file.name)
        return whole(file, wanted)

    monkeypatch.setattr(decode_ahead._decoders(), "decode", watched)
    known = []
    for file, outcome in decode_ahead.decode_ahead(audio, model.wanted):
        assert not isinstance(outcome, Exception)
        known.append((file.name, len(decoded)))
    assert known == [("0.wav", 1), ("1.wav", 2), ("2.wav", 3), ("3.wav", 4)]


@pytest.mark.slow
def test_an_hour_takes_little_memory(trained: RunDir, tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 44100, 2) as file:
        for k in range(60):
            file.write(np.repeat(noise(60.0, 44100, seed=k)[:, None], 2, axis=1))
    program = (
        "import resource; from featreg import load_model\n"
        f"model = load_model({str(trained.path)!r}); before = resource.getrusage(0).ru_maxrss\n"
        f"print(len(model.predict_over_time({str(path)!r}, hop_s=5.0).start_s))\n"
        "print(resource.getrusage(0).ru_maxrss - before)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    chunks, kilobytes = map(int, done.stdout.split())
    assert chunks == 720 or chunks == 721
    # 115 MB for the hour, and a piece of 10 minutes: 635 MB if it was decoded as a whole.
    assert kilobytes < 500_000
