"""Fixtures for test modules that name this one in ``pytest_plugins``: runs on the toy dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from synthetic import write_toy
from toy_runs import CONCAT, CONREG

from featreg.train.deploy.classifier import Classifier, load_model
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_toy(folder)
    return folder


@pytest.fixture(scope="module")
def trained(work: Path, one_thread: None) -> RunDir:
    return run(CONREG, work, "trained")


@pytest.fixture(scope="module")
def model(trained: RunDir) -> Classifier:
    return load_model(trained.path)


@pytest.fixture(scope="module")
def concat(work: Path, one_thread: None) -> RunDir:
    return run(CONCAT, work, "concat")
