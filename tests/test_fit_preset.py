"""The preset of a dataset without one of its own, the table of presets, the time that is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from synthetic import header, write_toy
from toy_runs import call

from featreg.train.config import fit_preset
from featreg.train.config.fit_preset import FEW_CLIPS, FITTED, fitted
from featreg.train.config.preset_table import preset_table
from featreg.train.config.presets import OFF, PRESETS
from featreg.train.training import time_left
from featreg.train.training.find_runs import find_runs
from featreg.train.training.time_left import TimeLeft, duration

QUICK = [
    "--encoder",
    "mel_cnn",
    "--width",
    "2",
    "--crop",
    "2.1",
    "--epochs",
    "1",
    "--chunks",
    "2",
    "--precision",
    "float32",
]


def train(work: Path, *more: str) -> str:
    fit_preset._say_once.cache_clear()
    result = call(work, "run", "--device", "cpu", *QUICK, *more)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_toy(tmp_path)
    return tmp_path


def presets(work: Path) -> list[str]:
    return [run.config().preset for run in find_runs(work)]


def test_the_size_of_the_data_and_the_machine_choose() -> None:
    assert fitted(10**6, "cpu")[0] == "small-data"
    assert fitted(FEW_CLIPS - 1, "cuda")[0] == "small-data"
    assert fitted(FEW_CLIPS, "cuda")[0] == "default"
    assert set(FITTED) <= set(PRESETS)


def test_the_choice_is_stored_and_said_once(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(work)
    assert presets(work) == ["small-data"]
    assert "presetsmall-data" in find_runs(work)[0].name
    assert sum("preset small-data" in each for each in caplog.messages if "because" in each) == 1


def test_a_dataset_with_a_preset_and_an_option_are_not_overruled(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(dataset="demo"))
    train(tmp_path)
    assert presets(tmp_path) == ["demo"]
    train(tmp_path, "--preset", "default")
    assert sorted(presets(tmp_path)) == ["default", "demo"]


@pytest.mark.parametrize("named", [(), ("--run-name", "mine")])
def test_a_started_run_keeps_its_preset(
    work: Path, named: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had been started on a machine with a GPU, and went on without one."""
    monkeypatch.setattr(fit_preset, "fitted", lambda clips, device: ("default", "of a test"))
    train(work, *named)
    assert presets(work) == ["default"]
    (find_runs(work)[0].path / "report.json").unlink()
    monkeypatch.undo()
    train(work, *named)
    assert presets(work) == ["default"]
    assert find_runs(work)[0].finished
    shutil.rmtree(work / "runs")
    train(work, *named)
    assert presets(work) == ["small-data"]


def test_fresh_chooses_anew(work: Path) -> None:
    train(work, "--preset", "default", "--run-name", "mine")
    train(work, "--run-name", "mine", "--fresh")
    assert presets(work) == ["small-data"]


def test_the_table_lists_every_setting_of_every_preset() -> None:
    table, shared = preset_table()
    assert table.columns.tolist() == ["setting", *PRESETS]
    rows = table.set_index("setting")
    assert rows.loc["epochs"].tolist() == [str(each.epochs) for each in PRESETS.values()]
    assert rows.loc["encoder-options", "speech_commands"] == "time_pools 2x1, pad_to 16128"
    assert rows.loc["alpha of conreg", "demo"] == "1"
    assert not set(rows.index) & set(shared)
    assert len(rows) + len(shared) == len(PRESETS["demo"].__slots__) + 1  # and alpha
    assert shared["encoder"] == "harmonic_cnn"


def test_the_papers_presets_do_not_augment() -> None:
    for name in ("mtat", "dcase2017", "speech_commands", "demo", "demo-small", "default"):
        assert not any(getattr(PRESETS[name], setting) for setting in OFF), name


def test_the_command_prints_the_table() -> None:
    from click.testing import CliRunner

    from featreg.train.cli.train import train as group

    result = CliRunner().invoke(group, ["presets"])
    assert result.exit_code == 0
    assert all(name in result.output for name in PRESETS)
    assert "class-weights off" in result.output


def test_the_time_that_is_left_is_estimated_from_five_steps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now[0])
    left = TimeLeft(1000)
    for done, seconds in enumerate([50.0, 9, *[3.0] * 20], start=101):  # resumed after 100 steps
        now[0] += seconds
        left.step(done)
    # After 7 steps, 893 are left, of 3 s each: 2,679 s.
    assert caplog.messages == [
        "training will take about 45 min (893 steps of 3 s), without validation"
    ]


def test_a_short_training_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    left = TimeLeft(30)
    for done in range(1, 31):
        left.step(done)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(60, "60 s"), (90, "2 min"), (5340, "89 min"), (9000, "2.5 h"), (86400 * 3, "3 days")],
)
def test_durations_have_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_augmentation_is_named_only_where_it_differs_from_the_preset(work: Path) -> None:
    train(work, "--preset", "default", "--mixup", "0.2", "--gain", "6", "--class-weights")
    (run,) = find_runs(work)
    assert "mixup0.2-gain6-classweights" in run.name
    assert run.config().recipe.mixup == 0.2
    stored = run.read_json("config.json")["config"]["recipe"]
    assert {*stored} & {*OFF} == {"mixup", "gain", "class_weights"}
    result = call(work, "run", *QUICK, "--preset", "default", "--run-name", run.name)
    assert result.exit_code == 2
    assert "mixup (0.2, not off)" in result.output


@pytest.mark.parametrize("wrong", ["--mixup -1", "--mask 1.5", "--gain nan", "--label-smoothing 1"])
def test_values_out_of_range_are_refused(work: Path, wrong: str) -> None:
    result = call(work, "run", *QUICK, *wrong.split())
    assert result.exit_code == 2
    assert wrong.split()[0] in result.output
    assert not (work / "runs").exists()
