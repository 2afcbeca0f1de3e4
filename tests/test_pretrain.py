"""Pretraining without labels, and runs that start from its encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lives import live, start
from safetensors.torch import load_file
from synthetic import header, write_toy
from test_unlabelled import hide_labels
from toy_runs import CONREG, RECIPE, call

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.config.config import Config
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.experiments.compare import Result, group
from featreg.train.training.build import build_objective
from featreg.train.training.find_runs import choose_run
from featreg.train.training.initial_weights import find_initial, initial_weights
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

PRETRAIN = dataclasses.replace(CONREG, reg="hint", alpha=1.0, pretrain=True, metric="reg_loss")
PLAIN = dataclasses.replace(CONREG, reg="none", features=(), alpha=0.0)
RATE = 16000


@pytest.fixture(scope="module")
def pretrained(work: Path, one_thread: None) -> RunDir:
    return run(PRETRAIN, work, "teacher-s0")


def started_from(work: Path, folder: RunDir, config: Config = PLAIN) -> Config:
    name, sha256 = find_initial(work, folder.name)
    return dataclasses.replace(config, init=name, init_sha256=sha256)


def test_the_files_of_a_pretraining(pretrained: RunDir) -> None:
    assert pretrained.finished
    pretrained.verify()
    assert pretrained.config() == PRETRAIN
    about, report = (pretrained.read_json(f"{name}.json") for name in ("config", "report"))
    assert about["data"]["clips"] == {"train": 16, "valid": 8}
    curves = pd.read_csv(pretrained.path / "metrics.csv")
    assert (curves["task_loss"] == 0).all()
    np.testing.assert_allclose(curves["loss"], curves["reg_loss"])
    assert report["best_epoch"] == curves["epoch"][curves["valid_reg_loss"].idxmin()]
    assert report["valid"] == {"reg_loss": curves["valid_reg_loss"].min()}
    assert not (pretrained.path / "model.safetensors").exists()


def test_labels_do_not_matter(pretrained: RunDir, tmp_path: Path) -> None:
    hide_labels(write_toy(tmp_path), "train", slice(None))
    hide_labels(tmp_path / "toy/aligned/tones+noise-0.1s", "valid", slice(None))
    again = run(PRETRAIN, tmp_path, "again")
    one, other = (load_file(each.path / "encoder.safetensors") for each in (pretrained, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_starts_from_the_encoder_alone(work: Path, pretrained: RunDir) -> None:
    config = started_from(work, pretrained)
    aligned = AlignedSet(work / "toy/aligned/tones+noise-0.1s")
    weights = initial_weights(config, work, RATE)
    started, plain = build_objective(config, aligned, weights), build_objective(PLAIN, aligned)
    stored = load_file(pretrained.path / "encoder.safetensors")
    for name, values in started.tagger.encoder.state_dict().items():
        assert torch.equal(values, stored[f"encoder.{name}"])
    for one, other in zip(
        started.tagger.decoder.parameters(), plain.tagger.decoder.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    folder = run(config, work)
    assert folder.name.startswith("toy-init-fromteacher-")
    assert folder.config() == config
    # A classifier's encoder can be the initial one as well.
    second = started_from(work, folder)
    expected = load_file(folder.path / "model.safetensors")
    for name, values in initial_weights(second, work, RATE).items():
        assert torch.equal(values, expected[f"encoder.{name}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "harmonic_cnn"}, "its encoder is mel_cnn, .* harmonic_cnn"),
        ({"width": 3}, "its width is 2, .* 3"),
        ({"encoder_options": {"width": 2}}, "its encoder options is"),
    ],
)
def test_another_architecture_is_refused(
    work: Path, pretrained: RunDir, changes: dict[str, object], message: str
) -> None:
    config = started_from(work, pretrained)
    other = dataclasses.replace(config, recipe=dataclasses.replace(RECIPE, **changes))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"^--init teacher-s0: {message}"):
        run(other, work, "other")
    assert not (work / "runs/other").exists()


def test_another_sample_rate_is_refused(work: Path, pretrained: RunDir) -> None:
    with pytest.raises(UsageError, match=r"its sample rate is 16000, .* 32000"):
        initial_weights(started_from(work, pretrained), work, 32000)


def test_a_pretraining_that_changed_is_named(work: Path, pretrained: RunDir) -> None:
    config = dataclasses.replace(started_from(work, pretrained), init_sha256="0" * 64)
    with pytest.raises(FeatregError, match=r"teacher-s0: .* trained again"):
        run(config, work, "changed")


def test_a_killed_pretraining_resumes_exactly(work: Path, pretrained: RunDir) -> None:
    for count in (1, 2, 0):
        process = start(live, work, PRETRAIN.to_json(), "killed", "step", count, 0.0)
        process.join(120)
        assert process.exitcode == (-9 if count else 0)
    killed = RunDir(work / "runs/killed")
    one, other = (load_file(each.path / "encoder.safetensors") for each in (pretrained, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_pretraining_is_no_classifier(work: Path, pretrained: RunDir) -> None:
    with pytest.raises(UsageError, match="train run --init teacher-s0"):
        choose_run(work, "teacher-s0")
    result = call(work, "compare", "teacher-s0")
    assert result.exit_code == 2
    assert "train run --init teacher-s0" in result.output


def test_seeds_may_have_pretrainings_of_their_own(work: Path, pretrained: RunDir) -> None:
    second = run(dataclasses.replace(PRETRAIN, seed=1), work, "teacher-s1")
    plain = [run(dataclasses.replace(PLAIN, seed=seed), work) for seed in (0, 1)]
    started = [
        run(dataclasses.replace(started_from(work, each), seed=seed), work)
        for seed, each in enumerate((pretrained, second))
    ]
    groups = group([Result(each) for each in (*plain, *started)])
    assert [(each.config.method, len(each.results)) for each in groups] == [
        ("baseline", 2),
        ("init", 2),
    ]
    assert "from teacher" in groups[1].label
    result = call(work, "compare", *(each.name for each in (*plain, *started)))
    assert result.exit_code == 0, result.output
    assert "pretrained (from teacher" in " ".join(result.output.split())
    assert "no baseline" not in result.output


QUICK = "--encoder mel_cnn --width 2 --crop 1 --epochs 1 --chunks 2 --precision float32"


def test_both_stages_as_they_are_typed(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(task="single-label"))
    for line in ("pretrain --run-name teacher", "run --init teacher --label-fraction 0.5"):
        result = call(tmp_path, *line.split(), *QUICK.split())
        assert result.exit_code == 0, result.output
    assert call(tmp_path, "compare").exit_code == 0  # without the pretraining
    config = RunDir(tmp_path / "runs/teacher").config()
    assert (config.reg, config.pretrain, config.recipe.feature_norm) == (
        "hint",
        True,
        "standardize",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --init nobody", "nobody: no such run"),
        ("run --init teacher-s0 --fusion features", "has no encoder"),
        ("run --init teacher-s0 --width 3", "its encoder is mel_cnn"),
        ("pretrain --reg none", "'none' is not one of"),
        ("pretrain --features vggish", "'vggish'"),
    ],
)
def test_invalid_options_are_one_line(
    work: Path, pretrained: RunDir, arguments: str, message: str
) -> None:
    result = call(work, *arguments.split())
    assert result.exit_code == 2
    assert message in result.output


def test_an_unfinished_run_is_no_start(work: Path) -> None:
    folder = work / "runs" / "half"
    process = start(live, work, PRETRAIN.to_json(), "half", "step", 1, 0.0)
    process.join(120)
    assert folder.is_dir()
    with pytest.raises(FeatregError, match=r"half is not finished"):
        find_initial(work, "half")


def test_two_validation_clips_are_needed(tmp_path: Path) -> None:
    write_toy(tmp_path, {"train": (9,), "valid": (1,)})
    with pytest.raises(UsageError, match=r"split valid: clips: 1, devices: 1; .* 2"):
        run(PRETRAIN, tmp_path)
