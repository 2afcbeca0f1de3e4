"""`train eval`: the same numbers as in the report, other shards, and invalid shards."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import h5py
import pytest
from kit import write
from synthetic import RATE, header, write_toy
from toy_runs import CLASSES, CONCAT, call, noise

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.deploy.chunk_network import ChunkNetwork
from featreg.train.evaluation.evaluate_run import evaluate_run
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["trained", "concat", "features"])
def test_evaluating_again_equals_the_report_exactly(
    work: Path, trained: RunDir, concat: RunDir, name: str
) -> None:
    if name == "features":
        run(dataclasses.replace(CONCAT, fusion="features"), work, name)
    report = RunDir(work / "runs" / name).read_json("report.json")
    found = json.loads(call(work, "eval", name, "--format", "json").stdout)
    assert found["metrics"] == report["test"]
    for key in ("intervals", "classes", "undefined"):
        assert found[key] == report[key]
    assert found["clips"] == 9
    valid = json.loads(call(work, "eval", name, "--split", "valid", "--format", "json").stdout)
    assert valid["metrics"] == report["valid"]


def test_the_evaluation_is_a_table(work: Path, trained: RunDir) -> None:
    report = trained.read_json("report.json")
    output = call(work, "eval", "trained").stdout
    assert "9 test clips" in output
    low, high = report["intervals"]["pr_auc"]
    line = next(line for line in output.splitlines() if line.startswith("macro PR-AUC"))
    assert line.split()[2:] == [
        f"{report['test']['pr_auc']:.3f}",
        f"{low:.3f}",
        "to",
        f"{high:.3f}",
    ]
    assert all(name in output for name in CLASSES)
    assert "Tones, not music." in output


def test_classes_without_positives_are_listed(tmp_path: Path, trained: RunDir) -> None:
    folder = write_toy(tmp_path)
    with h5py.File(folder / "test-00000.h5", "r+") as shard:
        label = shard["label"][()]
        label[:, 1] = 0
        shard["label"][...] = label
    result = call(tmp_path, "eval", trained.path)
    assert result.exit_code == 0, result.output
    assert re.search(r"^macro PR-AUC .*: middle$", result.stdout, re.MULTILINE)
    assert "nan" not in result.stdout.lower()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": ("low", "high", "middle")},
            "classes is low, high, middle, but .* low, middle",
        ),
        ({"resolution_s": 0.2}, "resolution_s is 0.2, but the model of concat .* with 0.1"),
        ({"audio_rate": 8000}, "audio_rate is 8000, but .* 16000"),
        (
            {"audio_settings": {"resampler": "kaiser_best"}},
            "resampler is kaiser_best, but .* with soxr_hq; extract and align as for that run",
        ),
        ({"mode": "area"}, "mode is area, but the model of concat .* with repeat"),
        ({"task": "single-label"}, "task is single-label, but .* multi-label"),
        (
            {"dims": {"noise": 3}},
            "'tones' not found, only noise; .* concat .*fusion concat",
        ),
        ({"dims": {"tones": 4, "noise": 2}}, "dim of noise is 2, but .* with 3"),
    ],
)
def test_shards_that_do_not_match_the_model_are_named(
    work: Path, concat: RunDir, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    about = header(**changes)
    write_toy(tmp_path, about=about)
    with pytest.raises(FeatregError, match=message):
        evaluate_run(concat, tmp_path)
    result = call(tmp_path, "eval", concat.path)
    assert result.exit_code == 1
    assert len([line for line in result.stderr.splitlines() if "error:" in line]) == 1


def test_too_little_memory_is_one_line(
    work: Path, trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("featreg.train.evaluation.evaluate_run.predict", full)
    monkeypatch.setattr(ChunkNetwork, "_batch", full)
    write(path := tmp_path / "noise.wav", noise(1.0), RATE)
    for command in (("eval", "trained"), ("predict", path, "--run", "trained")):
        result = call(work, *command)
        assert result.exit_code == 1
        assert "trained: out of memory" in result.stderr


def test_other_shards_can_be_selected(work: Path, trained: RunDir, tmp_path: Path) -> None:
    other = header(dims={"noise": 3}, mode="area", notes=("Other tones.",))
    write_toy(tmp_path, aligned="other", about=other)
    said = call(tmp_path, "eval", trained.path, "--aligned", "other").stdout
    assert "Other tones." in said  # the notes of what it was tested on
    assert "Tones, not music." not in said
    found = evaluate_run(trained, tmp_path, aligned="other")  # it needs no features
    assert found["metrics"] == trained.read_json("report.json")["test"]
    with pytest.raises(UsageError, match=r"--aligned nonsense.*other"):
        evaluate_run(trained, tmp_path, aligned="nonsense")
