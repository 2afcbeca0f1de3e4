"""`train predict`: any audio file, three formats, whole or over time."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from kit import make_kit, write
from synthetic import RATE
from toy_runs import CLASSES, call, noise

from featreg.train.deploy.classifier import Classifier
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def audio_kit(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Path]]:
    good, bad = make_kit(tmp_path_factory.mktemp("kit"))
    good["silent"] = bad.pop("silent")
    return good, bad


def rows(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(output)))


def test_every_file_of_the_kit_is_tagged_or_named(
    work: Path, trained: RunDir, audio_kit: tuple[dict[str, Path], dict[str, Path]]
) -> None:
    good, bad = audio_kit
    files = [*good.values(), *bad.values()]
    result = call(work, "predict", *files, "--run", "trained", "--format", "csv")
    assert result.exit_code == 1
    found = rows(result.stdout)
    assert [row["file"] for row in found] == [str(path) for path in good.values()]
    for row in found:
        assert all(0 <= float(row[name]) <= 1 for name in CLASSES)
    for path in bad.values():
        assert sum(str(path) in line for line in result.stderr.splitlines()) == 1
    assert f"{len(bad)} of {len(files)} " in result.stderr


def test_a_folder_stands_for_its_audio(work: Path, trained: RunDir, tmp_path: Path) -> None:
    write(tmp_path / "b/two.flac", noise(1.0), RATE)
    write(tmp_path / "a/one.wav", noise(1.0), RATE)
    (tmp_path / "cover.jpg").write_bytes(b"no audio")
    result = call(work, "predict", tmp_path, "--run", "trained", "--format", "csv")
    assert result.exit_code == 0, result.output
    assert [Path(row["file"]).name for row in rows(result.stdout)] == ["one.wav", "two.flac"]
    (tmp_path / "empty").mkdir()
    result = call(work, "predict", tmp_path / "empty", "--run", "trained")
    assert result.exit_code == 1
    assert str(tmp_path / "empty") in result.stderr


def test_formats_say_the_same(
    work: Path, trained: RunDir, model: Classifier, tmp_path: Path
) -> None:
    path = write(tmp_path / "noise.wav", noise(2.3), RATE, subtype="FLOAT")
    expected = model.predict(path)
    [row] = rows(call(work, "predict", path, "--run", "trained", "--format", "csv").stdout)
    [entry] = json.loads(
        call(work, "predict", path, "--run", trained.path, "--format", "json").stdout
    )
    assert row["file"] == entry["file"] == str(path)
    for name in CLASSES:
        # both have six decimals
        assert float(row[name]) == pytest.approx(expected[name], abs=1e-6)
        assert entry["tags"][name] == pytest.approx(expected[name], abs=1e-6)
    order = list(entry["tags"].values())
    assert order == sorted(order, reverse=True)
    table = call(work, "predict", path, "--run", "trained", "--top", "1").stdout
    best = max(expected, key=lambda name: expected[name])
    assert f"{best} {expected[best]:.2f}" in table
    assert sum(name in table for name in CLASSES) == 1


def test_predictions_over_time_have_their_stretch(
    work: Path, trained: RunDir, tmp_path: Path
) -> None:
    path = write(tmp_path / "noise.wav", noise(2.3), RATE)
    hop = ("predict", path, "--run", "trained", "--hop", "0.5")
    found = rows(call(work, *hop, "--format", "csv").stdout)
    assert [(row["start_s"], row["end_s"]) for row in found] == [
        ("0.000", "1.000"),
        ("0.500", "1.500"),
        ("1.000", "2.000"),
        ("1.300", "2.300"),
    ]
    entries = json.loads(call(work, *hop, "--format", "json", "--top", "2").stdout)
    assert [entry["start_s"] for entry in entries] == [0.0, 0.5, 1.0, 1.3]
    assert all(len(entry["tags"]) == 2 for entry in entries)
    assert "1.30 s" in call(work, *hop).stdout


def test_the_only_finished_run_needs_no_naming(
    work: Path, trained: RunDir, concat: RunDir, tmp_path: Path
) -> None:
    path = write(tmp_path / "noise.wav", noise(1.0), RATE)
    result = call(work, "predict", path)
    assert result.exit_code == 2
    assert "more than one run (concat, trained); choose one with --run" in result.output
    for command in ("eval", "export"):
        result = call(work, command)
        assert result.exit_code == 2
        assert "(concat, trained); choose one with the argument RUN" in result.output
    alone = tmp_path / "alone"
    (alone / "runs").mkdir(parents=True)
    (alone / "runs/only").symlink_to(trained.path)
    assert call(alone, "predict", path).exit_code == 0
    result = call(tmp_path / "nothing", "predict", path)
    assert result.exit_code == 1
    assert "no finished run; run `train run` first" in result.output
    result = call(work, "predict", path, "--run", "nonsense")
    assert result.exit_code == 2
    assert "nonsense: no such run; existing runs: concat, trained" in result.output


def test_an_unfinished_run_is_named(work: Path, trained: RunDir, tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "runs/half")
    folder.path.mkdir(parents=True)
    folder.write_json("config.json", trained.read_json("config.json"))
    for command in (("eval", "half"), ("predict", "x.wav", "--run", "half")):
        result = call(tmp_path, *command)
        assert result.exit_code == 1
        assert "not finished" in result.output


def test_top_of_a_csv_is_refused(work: Path) -> None:
    result = call(work, "predict", "x.wav", "--format", "csv", "--top", "3")
    assert result.exit_code == 2
    assert "--top 3" in result.output


def test_a_hop_below_a_sample_is_refused(work: Path, trained: RunDir) -> None:
    result = call(work, "predict", "x.wav", "--run", "trained", "--hop", "1e-9")
    assert result.exit_code == 2
    assert "--hop 1e-09: expected at least one sample, 6.25e-05 s" in result.output
