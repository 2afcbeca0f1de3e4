"""`train predict` on files as a disk may have them: nothing is lost, and nothing passes unnamed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from kit import make_clip, tone, write
from synthetic import RATE
from toy_runs import call, noise

from featreg import load_model
from featreg.datasets.audio.decode import decode
from featreg.datasets.audio.pcm16 import from_pcm16, to_pcm16
from featreg.datasets.base import ClipError, FeatregError
from featreg.extract.extractors.waveform import Waveform, WaveformConfig
from featreg.extract.pipeline.decode import DecodedClip, DecodeOptions, decode_clip
from featreg.train.deploy import decode_ahead
from featreg.train.deploy.classifier import Classifier
from featreg.train.deploy.model_file import read_model, write_model
from featreg.train.deploy.write_tags import csv_columns, csv_line
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")


def rows(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(output)))


# One signal for teacher and student


@pytest.mark.parametrize(
    ("rate", "channels", "peak"), [(16000, 1, 0.9), (44100, 2, 0.99), (8000, 1, 1.2), (48000, 3, 1)]
)
def test_extraction_stores_and_prediction_receives_the_samples_of_the_extractors(
    rate: int,
    channels: int,
    peak: float,
    model: Classifier,
    tmp_path: Path,
) -> None:
    samples = tone(1.7, rate, channels)
    samples *= peak / np.abs(samples.mean(axis=1)).max()
    path = write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    outcome = decode_clip(make_clip(path), DecodeOptions((RATE,), "soxr_hq", False))
    assert isinstance(outcome, DecodedClip)
    heard = outcome.signals[RATE]
    stored = Waveform(WaveformConfig(), {}).extract(heard)[:, 0]
    # Half a step of rounding, where both are in [-1, 1].
    apart = np.abs(stored / 32767 - np.clip(heard, -1, 1))
    assert apart.max() <= 0.5 / 32767 + 1e-7
    np.testing.assert_array_equal(model.prepare(path, None).audio, stored.astype(np.int16))


def test_16_bit_audio_is_rounded_to_the_nearest_and_comes_back() -> None:
    signal = np.linspace(-1.5, 1.5, 100_001, dtype=np.float32)
    stored = to_pcm16(signal)
    assert stored.dtype == np.int16
    assert (stored.min(), stored.max()) == (-32767, 32767)
    clipped = np.clip(signal, -1, 1)
    assert np.abs(from_pcm16(stored) - clipped).max() <= 0.5 / 32767 + 1e-7
    every = np.arange(-32767, 32768, dtype=np.int16)
    np.testing.assert_array_equal(to_pcm16(from_pcm16(every)), every)
    assert signal[0] == -1.5  # the caller's array is left alone


# Names


@pytest.mark.parametrize("format", ["csv", "json", "table"])
def test_a_name_that_is_not_utf8_can_be_recovered(
    format: str, work: Path, trained: RunDir, tmp_path: Path
) -> None:
    write(tmp_path / "plain.wav", noise(1.0), RATE)
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        os.rename(write(tmp_path / "odd.wav", noise(1.0), RATE), odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    result = call(work, "predict", tmp_path, "--run", "trained", "--format", format)
    assert result.exit_code == 0, result.output
    assert "caf\\udce9.wav" in result.stdout
    assert "plain.wav" in result.stdout
    if format == "json":
        names = [os.fsencode(entry["file"]) for entry in json.loads(result.stdout)]
        assert names == [odd, os.fsencode(tmp_path / "plain.wav")]
    os.truncate(odd, 20)
    result = call(work, "predict", tmp_path, "--run", "trained", "--format", format)
    assert result.exit_code == 1
    assert "plain.wav" in result.stdout
    assert "caf\\udce9.wav" in result.stderr


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\r\nb", 'a"b', "a,b", " a"])
def test_a_line_of_csv_gives_back_every_name(name: str) -> None:
    assert list(csv.reader(io.StringIO(csv_line([name, "0.5"]), newline=""))) == [[name, "0.5"]]


def test_output_is_utf8_whatever_the_terminal(work: Path, trained: RunDir, tmp_path: Path) -> None:
    path = write(tmp_path / "señal.wav", noise(1.0), RATE)
    program = "from featreg.train.cli.train import train; train()"
    line = ["predict", str(path), "--run", "trained", "--format", "json", "--work", str(work)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(
        [sys.executable, "-c", program, *line], capture_output=True, env=environment, check=True
    )
    (entry,) = json.loads(done.stdout.decode("utf-8"))
    assert entry["file"] == str(path)


@pytest.mark.parametrize("hop", [(), ("--hop", "0.5")])
def test_classes_called_as_other_columns_are(
    hop: tuple[str, ...], work: Path, trained: RunDir, tmp_path: Path
) -> None:
    tagger, card = read_model(trained.path / "model.safetensors")
    names = ("file", "class_file", "start_s")
    path = tmp_path / "model.safetensors"
    write_model(path, tagger, dataclasses.replace(card, classes=names))
    audio = write(tmp_path / "noise.wav", noise(1.0), RATE)
    result = call(work, "predict", audio, "--run", path, "--format", "csv", *hop)
    header = result.stdout.splitlines()[0].split(",")
    assert len(set(header)) == len(header) == (6 if hop else 4)
    assert {row["file"] for row in rows(result.stdout)} == {str(audio)}
    assert 0 <= float(rows(result.stdout)[0]["class_file"]) <= 1


def test_columns_are_the_classes_where_nothing_is_in_the_way() -> None:
    assert csv_columns(("a", "start_s"), False) == ["file", "a", "start_s"]
    expected = ["file", "start_s", "end_s", "a", "class_start_s"]
    assert csv_columns(("a", "start_s"), True) == expected


# Audio


def test_silence_and_channels_that_cancel_are_named(
    work: Path, trained: RunDir, tmp_path: Path
) -> None:
    write(tmp_path / "noise.wav", noise(1.0), RATE)
    silent = write(tmp_path / "silent.wav", np.zeros((RATE, 1), np.float32), RATE)
    left = noise(1.0)
    opposite = write(
        tmp_path / "opposite.wav", np.stack([left, -left], axis=1), RATE, subtype="FLOAT"
    )
    result = call(work, "predict", tmp_path, "--run", "trained", "--format", "csv")
    for path in (silent, opposite):
        assert sum(str(path) in line for line in result.stderr.splitlines()) == 1
    assert "noise.wav" not in result.stderr
    found = {Path(row["file"]).name for row in rows(result.stdout)}
    assert found >= {"noise.wav", "silent.wav"}


@pytest.mark.parametrize(
    "error",
    [ClipError("decode", "odd"), FeatregError("full"), MemoryError("none left"), KeyError(3)],
)
@pytest.mark.parametrize("format", ["csv", "json", "table"])
def test_one_bad_file_never_loses_the_others(
    format: str,
    error: Exception,
    work: Path,
    trained: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.wav", noise(1.0), RATE)
    whole = decode_ahead._decoders().decode

    def fail(file: Path, wanted: Any) -> Any:
        return error if file.name == "b.wav" else whole(file, wanted)

    monkeypatch.setattr(decode_ahead._decoders(), "decode", fail)
    result = call(work, "predict", tmp_path, "--run", "trained", "--format", format)
    assert result.exit_code == 1
    assert "a.wav" in result.stdout
    assert "c.wav" in result.stdout
    assert "b.wav" not in result.stdout
    expected = "odd" if isinstance(error, ClipError) else "b.wav"
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_a_name_that_is_too_long_fails_alone(work: Path, trained: RunDir, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0), RATE)
    long = tmp_path / ("x" * 5000)
    result = call(work, "predict", long, path, "--run", "trained", "--format", "csv")
    assert result.exit_code == 1
    assert [row["file"] for row in rows(result.stdout)] == [str(path)]
    assert "x" * 5000 in result.stderr


def test_a_rate_of_1_hz_takes_no_memory(work: Path, trained: RunDir, tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    soundfile.write(path, noise(6.0), 1)  # 96,000 s, or 1.5e9 samples at 16 kHz
    good = write(tmp_path / "good.wav", noise(1.0), RATE)
    result = call(work, "predict", path, good, "--run", "trained", "--format", "csv")
    assert result.exit_code == 1
    assert [row["file"] for row in rows(result.stdout)] == [str(good)]
    assert str(path) in result.stderr
    assert " 1 Hz" in result.stderr


def test_probabilities_that_are_not_finite_are_no_result(
    trained: RunDir, work: Path, tmp_path: Path
) -> None:
    tagger, card = read_model(trained.path / "model.safetensors")
    with torch.no_grad():
        for values in tagger.parameters():
            values.fill_(torch.nan)
    path = tmp_path / "model.safetensors"
    write_model(path, tagger, card)
    audio = write(tmp_path / "a.wav", noise(1.0), RATE)
    result = call(work, "predict", audio, "--run", path)
    assert result.exit_code != 0
    assert "finite" in result.stderr
    with pytest.raises(FeatregError, match="finite"):
        load_model(path).predict(noise(1.0), RATE)


def test_what_decoders_print_is_left_out(
    work: Path, trained: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write(tmp_path / "whole.mp3", tone(2.0, 44100), 44100).read_bytes()
    rng = np.random.default_rng(0)
    damaged = []
    for k in range(6):
        content = bytearray(whole)
        for position in rng.integers(500, len(content), 30):
            content[position] = rng.integers(256)
        damaged.append(tmp_path / f"{k}.mp3")
        damaged[-1].write_bytes(content)
    for path in damaged:
        with contextlib.suppress(ClipError):
            decode(make_clip(path))
    if "mpg123" not in capfd.readouterr().err:
        pytest.skip("this decoder prints nothing")
    result = call(work, "predict", *damaged, "--run", "trained")
    said = result.output + capfd.readouterr().err
    assert "mpg123" not in said
    assert "Illegal" not in said
    os.write(2, b"as before")
    assert capfd.readouterr().err == "as before"
