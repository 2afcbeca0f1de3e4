"""Damaged files in a run folder: refused by name, and never a reason for other numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from damaged_files import ABSURD, damaged_versions, flipped
from made_up import make_up_runs
from synthetic import write_toy
from toy_runs import CONCAT, call

from featreg.datasets.base import FeatregError
from featreg.train.deploy.model_file import read_model
from featreg.train.evaluation.evaluate_run import evaluate_run, read_scaling
from featreg.train.experiments.compare import load
from featreg.train.experiments.sweep import Runner
from featreg.train.training.checkpoint import Progress
from featreg.train.training.metrics_log import MetricsLog
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir
from featreg.train.training.run_files import OUTPUTS

# A pretraining alone has an encoder.
FILES = ("config.json", "report.json", *(name for name in OUTPUTS if name != "encoder.safetensors"))
TWO_EPOCHS = dataclasses.replace(CONCAT, recipe=dataclasses.replace(CONCAT.recipe, epochs=2))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a finished run, ``done``, and one that was stopped, ``half``."""
    folder = tmp_path_factory.mktemp("work")
    write_toy(folder)
    run(TWO_EPOCHS, folder, "done")
    epoch = MetricsLog.epoch

    def stop(self: MetricsLog, history: Sequence[dict[str, float]]) -> None:
        epoch(self, history)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(TWO_EPOCHS, folder, "half")
    return folder


@pytest.fixture
def done(work: Path, tmp_path: Path) -> RunDir:
    """A copy of the finished run, to be damaged."""
    return RunDir(Path(shutil.copytree(work / "runs" / "done", tmp_path / "runs" / "done")))


def read_all(folder: RunDir) -> object:
    """All that the files of a finished run hold."""
    folder.verify()
    tagger, card = read_model(folder.path / "model.safetensors")
    scaling = read_scaling(folder.path)
    return (
        folder.config(),
        folder.read_json("report.json"),
        card,
        {name: values.numpy().tobytes() for name, values in tagger.state_dict().items()},
        (scaling.mean.tobytes(), scaling.std.tobytes()),
    )


def attempt(read: Callable[[], object]) -> object:
    """What is read, or the error that refuses it."""
    try:
        return read()
    except FeatregError as error:
        return error


@pytest.mark.parametrize("name", FILES)
def test_every_damaged_file_is_named_or_holds_the_same(done: RunDir, name: str) -> None:
    path, expected = done.path / name, read_all(done)
    contents = path.read_bytes()
    refused = 0
    for what, damaged in damaged_versions(name, contents):
        path.write_bytes(damaged)
        found = attempt(lambda: read_all(done))
        if isinstance(found, FeatregError):
            refused += 1
            assert re.fullmatch(f"{path}: .*--fresh", str(found)), what
        else:
            assert found == expected, what
    assert refused >= 40
    path.write_bytes(contents)
    assert read_all(done) == expected


def test_no_damaged_model_is_used(done: RunDir) -> None:
    """Without its report: a model may be copied elsewhere."""
    path = done.path / "model.safetensors"
    (done.path / "report.json").unlink()
    for what, damaged in damaged_versions(path.name, path.read_bytes(), seed=1):
        path.write_bytes(damaged)
        with pytest.raises(FeatregError, match=r"model\.safetensors"):
            pytest.fail(f"{what}: {read_model(path)}")


def test_no_damaged_state_is_resumed_from(work: Path, tmp_path: Path) -> None:
    contents = (work / "runs" / "half" / "state.pt").read_bytes()
    path = tmp_path / "state.pt"
    path.write_bytes(contents)
    assert Progress.load(path).epoch == 1
    for what, damaged in damaged_versions(path.name, contents):
        path.write_bytes(damaged)
        with pytest.raises(FeatregError, match=r"state\.pt.*--fresh"):
            pytest.fail(f"{what}: {Progress.load(path).step}")


@pytest.mark.parametrize("name", ["config.json", "report.json"])
def test_values_of_another_type_are_refused_even_with_a_checksum(done: RunDir, name: str) -> None:
    values = done.read_json(name)
    written = set(values) - {"format", "version", "files"}  # these are written anew
    for key in written:
        for absurd in ABSURD:
            if type(absurd) is type(values[key]) or (isinstance(values[key], int | float)):
                continue
            done.write_json(name, {**values, key: absurd})
            with pytest.raises(FeatregError, match=name):
                done.verify()
        done.write_json(name, {other: value for other, value in values.items() if other != key})
        if key not in ("valid", "test", "thresholds"):
            with pytest.raises(FeatregError, match=key):
                done.verify()
    for value in (float("nan"), -0.1, 1e9, None, "0.5"):
        done.write_json(name, {**values, "test": {"pr_auc": value}})
        with pytest.raises(FeatregError, match=r"metrics from 0 to 1"):
            done.verify()


def test_runs_of_version_0_1_are_to_be_trained_again(done: RunDir) -> None:
    values = {"format": "featreg-run", "version": 1, "config": TWO_EPOCHS.to_json()}
    (done.path / "config.json").write_text(json.dumps(values))
    with pytest.raises(FeatregError, match=r"version 2, found featreg-run version 1.*--fresh"):
        done.config()


def test_damaged_runs_are_left_out_of_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_up_runs(tmp_path)
    sound = load(tmp_path, [], None)
    assert not sound[1]
    broken = tmp_path / "runs" / "demo-conreg-musicnn-a0.3-s1"
    for name in ("config.json", "report.json", "embeddings.npz"):
        contents = (broken / name).read_bytes()
        (broken / name).write_bytes(flipped(contents, 8 * 300 + 1))
        groups, damaged = load(tmp_path, [], None)
        assert [len(each.results) for each in groups] == [2, 1]
        assert list(damaged) == [broken.name]
        assert str(broken / name) in damaged[broken.name]
        (broken / name).write_bytes(contents)
    config = (broken / "config.json").read_bytes()
    (broken / "config.json").unlink()
    assert str(broken / "config.json") in load(tmp_path, [], None)[1][broken.name]
    (broken / "config.json").write_bytes(config)
    (broken / "predictions.csv").unlink()
    shown = call(tmp_path, "compare")
    assert shown.exit_code == 1
    assert str(broken / "predictions.csv") in shown.output
    assert "0.550 ± 0.071" in shown.output  # the baseline's two runs
    assert (tmp_path / "reports" / "demo.html").is_file()
    only = call(tmp_path, "compare", broken.name)
    assert only.exit_code == 1
    assert isinstance(only.exception, SystemExit)
    assert str(broken / "predictions.csv") in only.output


def test_a_sweep_leaves_damaged_runs_out(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "toy", tmp_path / "toy")
    seeds = [dataclasses.replace(CONCAT, seed=seed) for seed in (0, 1)]
    Runner(tmp_path).run(seeds)
    path = tmp_path / "runs" / seeds[0].run_name / "embeddings.npz"
    path.write_bytes(flipped(path.read_bytes(), 1000))
    again = Runner(tmp_path)
    again.run(seeds)
    assert list(again.damaged) == [seeds[0].run_name]
    [group] = again.groups([seeds, seeds[:1]])
    assert [result.config.seed for result in group.results] == [1]
    Runner(tmp_path, fresh=True).run(seeds[:1])
    RunDir(path.parent).verify()


@pytest.mark.parametrize("name", ["config.json", "report.json", "embeddings.npz"])
def test_fresh_replaces_a_damaged_run(work: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(work / "toy", tmp_path / "toy")
    folder = run(CONCAT, tmp_path)
    (folder.path / name).write_bytes(b"")
    with pytest.raises(FeatregError, match=rf"{name}.*--fresh"):
        run(CONCAT, tmp_path)
    assert run(CONCAT, tmp_path, fresh=True) == folder
    folder.verify()


def outcome(work: Path, command: str, target: RunDir) -> object:
    """The numbers that a command finds; raises what the command would exit with."""
    if command == "eval":
        return evaluate_run(target, work)["metrics"]
    if command == "compare":
        groups, damaged = load(work, [], None)
        if damaged:
            raise FeatregError(damaged[target.name])
        return [(each.values("pr_auc"), each.test_set, each.precision.tolist()) for each in groups]
    folder = run(TWO_EPOCHS, work, target.name)
    report = folder.read_json("report.json")
    return report["test"], report["best_epoch"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["eval", "compare", "run", "resume"])
def test_no_command_ends_in_a_traceback_or_with_other_numbers(
    work: Path, tmp_path: Path, command: str
) -> None:
    shutil.copytree(work / "toy", tmp_path / "toy")
    name = "half" if command == "resume" else "done"
    pristine, target = work / "runs" / name, RunDir(tmp_path / "runs" / name)
    shutil.copytree(work / "runs" / "done", tmp_path / "runs" / "sound")
    shutil.copytree(pristine, target.path)
    expected = outcome(tmp_path, command, target)
    tried = refused = 0
    for path in sorted(pristine.iterdir()):
        if path.suffix not in (".json", ".csv", ".npz", ".pt", ".safetensors"):
            continue
        for what, damaged in damaged_versions(path.name, path.read_bytes(), seed=2):
            shutil.rmtree(target.path)
            shutil.copytree(pristine, target.path)
            (target.path / path.name).write_bytes(damaged)
            tried += 1
            found = attempt(lambda: outcome(tmp_path, command, target))
            if isinstance(found, FeatregError):
                refused += 1
                assert str(target.path / path.name) in str(found), what
            else:
                assert found == expected, (path.name, what)
    print(f"{command}: {tried} damaged files, {refused} refused by name")
