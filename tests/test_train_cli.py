"""The command `train`: defaults, errors of one line, exit statuses."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from synthetic import header, write_shard, write_toy

from featreg.datasets.base import Dataset
from featreg.datasets.shards.workdir import DatasetDir
from featreg.train.cli.train import train
from featreg.train.config.presets import PRESETS
from featreg.train.evaluation.metrics import METRICS
from featreg.train.training.find_runs import find_runs

QUICK = [
    "--preset",
    "default",
    "--width",
    "4",
    "--crop",
    "2.1",
    "--epochs",
    "1",
    "--chunks",
    "2",
    "--precision",
    "float32",
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_toy(folder)
    return folder


def call(work: Path, *arguments: str) -> Result:
    return CliRunner().invoke(train, [*arguments, "--work", str(work)])


def test_one_dataset_and_one_aligned_set_need_no_naming(work: Path) -> None:
    result = call(work, "run", "--reg", "conreg", *QUICK)
    assert result.exit_code == 0, result.output
    [run] = find_runs(work)
    config = run.config()
    assert config.dataset == "toy"
    assert config.features == ("tones", "noise")
    assert config.alpha == 5.0  # the paper's
    assert run.finished


def test_a_preset_is_found_by_the_name_of_the_dataset(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(dataset="demo"))
    result = call(tmp_path, "run", "--width", "2", "--epochs", "1")
    assert result.exit_code == 0, result.output
    config = find_runs(tmp_path)[0].config()
    assert config.preset == "demo"
    assert dataclasses.replace(
        config.recipe, width=32, epochs=PRESETS["demo"].epochs, precision="auto"
    ) == dataclasses.replace(PRESETS["demo"], width=32)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--reg conreg --features vggish", 2, "'vggish'"),
        ("--reg conreg --fusion features", 2, "--reg conreg --fusion features"),
        ("--features tones", 2, "--features tones"),
        ("--alpha 2", 2, "--reg"),
        ("--fraction 0", 2, "--fraction 0"),
        ("--label-fraction 0", 2, "--label-fraction 0"),
        ("--label-fraction nan", 2, "--label-fraction nan"),
        ("--label-fraction 1.5", 2, "--label-fraction 1.5"),
        ("--label-fraction 0.01", 2, "training clips: 1, devices: 1;"),
        ("--unlabelled-batch 4", 2, "select one with --reg"),
        ("--unlabelled-batch -1", 2, "-1 is not in the range"),
        ("--reg hint --unlabelled-batch 4", 2, "all 16 training clips"),
        ("--fraction 0.01", 2, "training clips: 1, devices: 1;"),
        ("--devices 9 --device cpu", 2, "training clips: 16, devices: 9;"),
        ("--crop 2.15", 2, "2.15 s (--crop)"),
        ("--crop 0.1", 2, "at least 32512 samples, got 1600"),
        ("--metric auc", 2, "pr_auc, roc_auc, f1_samples, f1_micro"),
        ("--metric accuracy", 2, "choose from pr_auc, roc_auc, f1_samples, f1_micro"),
        ("--dataset mtat", 2, "toy"),
        ("--aligned other", 2, "tones+noise-0.1s"),
        ("--reg nonsense", 2, "'nonsense' is not one of"),
        ("--chunks 1", 2, "1 is not in the range"),
        ("--fraction nan", 2, "--fraction nan"),
        ("--crop inf", 2, "'--crop': inf is not in the range"),
        ("--clip-norm inf", 2, "'--clip-norm': expected a finite number, found inf"),
        ("--crop nan", 2, "'--crop': expected a finite number, found nan"),
        ("--lr nan", 2, "'--lr': expected a finite number, found nan"),
        ("--clip-norm nan", 2, "'--clip-norm': expected a finite number, found nan"),
        ("--reg conreg --alpha nan", 2, "'--alpha': expected a finite number, found nan"),
        ("--crop 1e305", 2, "1e+305 is not in the range 0<x<=3600"),
        ("--width 100000000", 2, "100000000 is not in the range 1<=x<=10000"),
        ("--chunks 10000000000000", 2, "10000000000000 is not in the range 2<=x<=10000"),
        ("--devices 100000000000000000", 2, "is not in the range 1<=x<=1024"),
        ("--seed 18446744073709551616", 2, "is not in the range 0<=x<=4294967295"),
        ("--save-every nan", 2, "'--save-every': expected a finite number, found nan"),
    ],
)
def test_invalid_options_are_one_line(
    work: Path, arguments: str, status: int, message: str
) -> None:
    result = call(work, "run", *arguments.split())
    assert result.exit_code == status
    assert message in result.output
    assert "Traceback" not in result.output


def test_training_before_extraction_names_the_step(tmp_path: Path) -> None:
    result = call(tmp_path, "run")
    assert result.exit_code == 1
    assert "prep extract" in result.output


def test_training_before_alignment_names_the_step(tmp_path: Path) -> None:
    about = header()
    clips = write_shard(tmp_path / "elsewhere.h5", "train", [1.0], about)
    dataset = Dataset("toy", about.classes, tuple(clips))
    DatasetDir(tmp_path / "toy").write_dataset(dataset, ["tones"])
    result = call(tmp_path, "run", "--reg", "conreg")
    assert result.exit_code == 1
    assert "prep align --resolution 0.1" in result.output


def test_a_shard_of_another_resolution_is_named(tmp_path: Path) -> None:
    folder = write_toy(tmp_path)
    write_shard(folder / "train-00009.h5", "train", [1.0], header(resolution_s=0.2))
    result = call(tmp_path, "run")
    assert result.exit_code == 1
    assert "resolution_s is 0.2, but 0.1 in test-00000.h5" in " ".join(result.output.split())


def test_two_aligned_sets_are_listed(tmp_path: Path) -> None:
    write_toy(tmp_path)
    write_toy(tmp_path, aligned="tones-0.5s")
    result = call(tmp_path, "run")
    assert result.exit_code == 2
    assert "choose one with --aligned" in result.output


def test_comparing_without_runs_names_the_step(tmp_path: Path) -> None:
    result = call(tmp_path, "compare")
    assert result.exit_code == 1
    assert "train run" in result.output


def test_an_unknown_run_is_named(work: Path) -> None:
    result = call(work, "compare", "nonsense")
    assert result.exit_code == 2
    assert "nonsense: no such run" in result.output


def test_alpha_is_chosen_on_the_validation_split(work: Path) -> None:
    arguments = ["choose-alpha", "--reg", "disreg", "--alphas", "0,0.5", "--features", "tones"]
    result = call(work, *arguments, *QUICK)
    assert result.exit_code == 0, result.output
    runs = {run.config().alpha: run for run in find_runs(work) if run.config().reg == "disreg"}
    assert runs.keys() == {0.0, 0.5}
    valid = {a: run.read_json("report.json")["valid"]["pr_auc"] for a, run in runs.items()}
    best = max(sorted(valid), key=lambda alpha: valid[alpha])
    assert f"alpha {best:g} of Dis-Reg (tones) on toy" in result.output
    assert (work / "reports" / "alpha-toy-disreg-tones.csv").is_file()


def test_no_regularizer_has_no_alpha_to_choose(work: Path) -> None:
    assert call(work, "choose-alpha").exit_code == 2


@pytest.mark.parametrize(
    "command", ["run", "pretrain", "compare", "table1", "ablate", "choose-alpha", "params"]
)
def test_help_shows_defaults_and_ends_with_an_example(command: str) -> None:
    result = CliRunner().invoke(train, [command, "--help"])
    assert result.exit_code == 0
    assert "[default: " in result.output
    assert f"train {command}" in result.output.split("Example:")[1]


def test_parameters_of_the_paper_are_printed() -> None:
    result = CliRunner().invoke(train, ["params"])
    assert result.exit_code == 0, result.output
    assert "3,623,070" in result.output  # the plain network with 17 classes


def test_too_many_classes_are_refused() -> None:
    result = CliRunner().invoke(train, ["params", "--classes", "1000000000000"])
    assert result.exit_code == 2
    assert "1000000000000 is not in the range 1<=x<=100000" in result.output


def test_every_metric_has_a_direction() -> None:
    assert all(isinstance(metric.higher_is_better, bool) for metric in METRICS.values())


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    write_toy(tmp_path)
    command = [Path(sys.executable).parent / "train", "run", "--devices", "2", "--device", "cpu"]
    done = subprocess.run(
        [*command, *QUICK, "--work", tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [run] = find_runs(tmp_path)
    assert run.config().devices == 2
    # Each process predicted its share of the clips; all of them came together.
    with np.load(run.path / "embeddings.npz") as arrays:
        assert arrays["embedding"].shape[0] == 9
        assert arrays["embedding"].any(axis=1).all()
