"""A configuration as a command line, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from synthetic import header, write_toy

from featreg.train.cli.train import train
from featreg.train.config.options import configure
from featreg.train.config.presets import Config
from featreg.train.experiments.command_line import arguments, command


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_toy(folder)
    write_toy(folder, about=header(dataset="demo"))
    return folder


def understood(work: Path, words: list[str]) -> Config:
    """What ``train run`` makes of its arguments."""
    options: dict[str, Any] = train.commands["run"].make_context("run", list(words)).params
    return configure(work, "cpu", options)


@pytest.mark.parametrize(
    "asked",
    [
        "--dataset toy",
        "--dataset toy --reg conreg",
        "--dataset toy --reg disreg --alpha 0",
        "--dataset toy --reg conreg --features noise --alpha 0.30000000000000004 --seed 7",
        "--dataset toy --fusion film --features noise+tones --fraction 0.35 --devices 2",
        "--dataset toy --fusion concat --reg conreg --metric roc_auc --standardize",
        "--dataset toy --preset mtat --lr 0.0003 --crop 2.5 --precision bf16-mixed",
        "--dataset toy --encoder mel_cnn --width 8 --patience 3 --clip-norm 0 --no-standardize",
        "--dataset demo --preset demo-small --epochs 2 --chunks 4 --batch-size 8",
        "--dataset demo --reg conreg",
    ],
)
def test_what_is_spelled_is_what_was_asked(work: Path, asked: str) -> None:
    config = understood(work, asked.split())
    spelled = arguments(config)
    assert understood(work, spelled) == config
    # What the preset decides is not spelled out.
    assert set(asked.split()) - {"--no-standardize"} <= set(spelled)


def test_a_command_can_be_pasted(work: Path) -> None:
    config = understood(work, ["--dataset", "demo", "--reg", "conreg", "--seed", "2"])
    text = command(config)
    assert text.startswith("train run --dataset demo --aligned tones+noise-0.1s --reg conreg ")
    assert shlex.split(text)[2:] == arguments(config)
