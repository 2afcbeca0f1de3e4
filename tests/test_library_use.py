"""Training from another program, a notebook for example, leaves that program as it was."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from synthetic import write_toy
from toy_runs import CONREG

from featreg.datasets.base import FeatregError
from featreg.train.evaluation.evaluate_run import evaluate_run
from featreg.train.training import run as training
from featreg.train.training.deterministic import deterministic

LOGGERS = ("featreg", "lightning.fabric", "lightning.pytorch")


def settings() -> dict[str, object]:
    """Settings of this process that training works with."""
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": torch.backends.cudnn.benchmark,
        "random": torch.get_rng_state().tolist(),
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "levels": [logging.getLogger(name).level for name in LOGGERS],
        "threads": torch.get_num_threads(),
    }


@pytest.mark.parametrize("before", [False, True])
def test_deterministic_mode_ends_with_its_block(before: bool) -> None:
    torch.use_deterministic_algorithms(before)
    try:
        found = settings()
        with deterministic():
            assert torch.are_deterministic_algorithms_enabled()
            torch.manual_seed(1)
        assert settings() == found
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_run_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path)
    torch.manual_seed(7)
    before = settings()
    folder = training.run(CONREG, tmp_path)
    assert settings() == before
    evaluate_run(folder, tmp_path)
    assert settings() == before

    def fail(*_: object, **__: object) -> None:
        raise FeatregError("stopped")

    monkeypatch.setattr(training, "write_predictions", fail)
    with pytest.raises(FeatregError, match="stopped"):
        training.run(CONREG, tmp_path, "failed")
    assert settings() == before
