"""The loss of a batch with unannotated labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from featreg.train.data.crops import Batch
from featreg.train.models.base import Output
from featreg.train.training.objective import Objective


class _Says(torch.nn.Module):
    """A classifier with the same logits for any input."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, audio: object, features: object, labelled: int) -> Any:
        return Output(self._logits, self._logits[:, None])


def test_unannotated_labels_do_not_count() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    label = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    batch = Batch(torch.empty(2, 1), torch.empty(2, 1, 0), label, mask, torch.arange(2))
    objective = Objective(_Says(logits), None, 0.0, "multi-label")
    # -log sigmoid(2) and -log(1 - sigmoid(0.5)); float32 rounds at 1e-7.
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5))) / 2
    assert objective(batch).task.item() == pytest.approx(expected, rel=1e-6)


def test_unannotated_clips_do_not_count_in_a_single_label_task() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0], [1.0, 1.0]])
    label = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    batch = Batch(torch.empty(3, 1), torch.empty(3, 1, 0), label, mask, torch.arange(3))
    # log(1 + e^-3) and log 2; float32 rounds at 1e-7.
    expected = (np.log1p(np.exp(-3)) + np.log(2)) / 2
    objective = Objective(_Says(logits), None, 0.0, "single-label")
    assert objective(batch).task.item() == pytest.approx(expected, rel=1e-6)
    nothing = Objective(_Says(logits), None, 0.0, "single-label")(
        batch._replace(label_mask=torch.zeros(3, 2))
    )
    assert nothing.task.item() == 0
