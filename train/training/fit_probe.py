"""Fitting of a probe: logistic regression or a multilayer perceptron on pooled features.

The strength of the regularization is chosen by the validation metric over a grid: C, the inverse
strength of the L2 penalty, for logistic regression (scikit-learn), and the weight decay of AdamW
for the multilayer perceptron, whose best epoch is chosen too. Single-label probes are
multinomial. Multi-label probes have one binary classifier per class, fitted to the clips where
the class is annotated, and C is the same for all classes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from featreg.datasets.base import FeatregError, Task
from featreg.datasets.console import progress

from ..data.aligned_set import Clips
from ..data.crops import Batch
from ..evaluation.metrics import Metric
from ..evaluation.predict import probabilities
from ..models.base import Output, Tagger
from ..models.probe import Probe
from .checkpoint import Progress
from .objective import Objective

GRID = tuple(10.0**k for k in np.arange(-5, 2.5, 0.5))
"""Values of C."""

WEIGHT_DECAYS = (0.01, 0.1, 1.0)
"""Weight decays of the multilayer perceptron."""

HIDDEN, EPOCHS, BATCH_SIZE, LEARNING_RATE = 128, 60, 64, 1e-3
"""Settings of the multilayer perceptron."""

_ABSENT = -30.0  # logit of a class without training clips: its probability is 0

Row = dict[str, float]
Array = npt.NDArray[Any]


class Pooled(NamedTuple):
    """Clips, and their pooled features, of shape (clips, dim)."""

    clips: Clips
    features: Tensor

    def known(self) -> Pooled:
        """Return the clips with an annotation."""
        known = np.asarray(self.clips.label_mask.any(axis=1))
        return Pooled(self.clips.take(known), self.features[torch.from_numpy(known)])


def fit_probe(
    probe: Probe, kind: str, train: Pooled, valid: Pooled, task: Task, metric: Metric, seed: int
) -> Progress:
    """Fit a probe to the annotated clips and keep the setting that is best on validation.

    If several settings have the same metric, the one with the lowest validation loss is kept.

    Parameters
    ----------
    probe
        The probe; its statistics, from all training clips, and its weights are set.
    kind
        ``logistic`` or ``mlp``.
    train, valid
        The training and validation clips.
    task
        ``multi-label`` or ``single-label``.
    metric
        The validation metric.
    seed
        Seed of the multilayer perceptron's order of clips.

    Returns
    -------
    `history` with a row for each setting (and epoch) that was tried, and the number of the best.

    Raises
    ------
    FeatregError
        If no training clip is annotated, or those of a single-label task have only one class.
    """
    _standardize(probe, train.features)
    train = train.known()
    _require_classes(train.clips.label, task)
    with torch.no_grad():
        inputs, tested = (probe.classify(each.features).embedding for each in (train, valid))
    objective = Objective(_Head(probe.head), None, 0.0, task)
    batch, valid_batch = _batch(inputs, train.clips), _batch(tested, valid.clips)
    if kind == "logistic":
        fits = _logistic_fits(probe, batch, task)
    else:
        fits = _mlp_fits(probe, objective, batch, seed)
    state, started, best_loss = Progress(), time.perf_counter(), math.inf
    label, mask = valid.clips.label, valid.clips.label_mask
    for row in fits:
        with torch.no_grad():
            logits, loss = probe.head(tested[:, 0]), float(objective(valid_batch).total)
        value = metric(label, probabilities(logits, task).numpy(), mask)
        now = time.perf_counter()
        scores = {f"valid_{metric.name}": value, "validation_loss": loss}
        state.history.append({**row, **scores, "seconds": now - started})
        started = now
        better = not state.best or metric.improves(value, state.best_value)
        if better or (value == state.best_value and loss < best_loss):
            state.best_epoch, state.best_value = len(state.history), value
            state.best = {name: each.clone() for name, each in probe.state_dict().items()}
            best_loss = loss
    probe.load_state_dict(state.best)
    return state


def _batch(inputs: Tensor, clips: Clips) -> Batch:
    """Return all clips as one batch, with standardized pooled features as single frames."""
    label, mask = (
        torch.from_numpy(each.astype(np.float32)) for each in (clips.label, clips.label_mask)
    )
    return Batch(inputs.new_zeros(len(inputs), 0), inputs, label, mask, torch.arange(len(inputs)))


def _standardize(probe: Probe, pooled: Tensor) -> None:
    std, mean = torch.std_mean(pooled.double(), dim=0, correction=0)
    std[std < 1e-6 * mean.abs() + 1e-12] = 1  # constant dimensions
    probe.mean.copy_(mean)
    probe.std.copy_(std)


def _require_classes(label: npt.NDArray[np.uint8], task: Task) -> None:
    found = int(label.any(axis=0).sum())
    if not len(label) or (task == "single-label" and found < 2):
        raise FeatregError(
            f"the training split has {len(label)} annotated clips of {found} classes; a probe "
            "needs clips of 2 classes or more: annotate more clips, or use a larger --fraction"
        )


def _logistic_fits(probe: Probe, batch: Batch, task: Task) -> Iterator[Row]:
    """Fit each value of C, starting from the solution before; the head has its weights."""
    assert isinstance(probe.head, nn.Linear)
    x, single = batch.features[:, 0].double().numpy(), task == "single-label"
    label, mask = batch.label.numpy(), batch.label_mask.numpy()
    models = [
        LogisticRegression(max_iter=1000, tol=1e-6, warm_start=True)
        for _ in range(1 if single else label.shape[1])
    ]
    with progress("fitting", len(GRID)) as advance, warnings.catch_warnings():
        # A solution that has not converged is valid too: validation judges it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in GRID:
            for model in models:
                model.set_params(C=C)
            if single:
                weight, bias = _multinomial(models[0], x, label)
            else:
                columns = zip(models, mask.T > 0, label.T, strict=True)
                pairs = [_binary(model, x[known], y[known]) for model, known, y in columns]
                weight, bias = (np.stack(part) for part in zip(*pairs, strict=True))
            with torch.no_grad():
                probe.head.weight.copy_(torch.from_numpy(weight))
                probe.head.bias.copy_(torch.from_numpy(bias))
            yield {"C": C}
            advance()


def _multinomial(model: Any, x: Array, label: Array) -> tuple[Array, Array]:
    """Return weights of shape (classes, dim) and biases of shape (classes,)."""
    model.fit(x, label.argmax(axis=1))
    weight, bias = np.zeros((label.shape[1], x.shape[1])), np.full(label.shape[1], _ABSENT)
    # With two classes, scikit-learn returns the difference of their logits.
    two = len(model.classes_) == 2
    weight[model.classes_] = np.stack([0 * model.coef_[0], model.coef_[0]]) if two else model.coef_
    bias[model.classes_] = [0, model.intercept_[0]] if two else model.intercept_
    return weight, bias


def _binary(model: Any, x: Array, y: Array) -> tuple[Array, Array]:
    """Return weights of shape (dim,) and the bias of one class."""
    positives = y.sum()
    if positives in (0, len(y)):  # nothing to separate: a constant, by Laplace's rule
        return np.zeros(x.shape[1]), np.log((positives + 1) / (len(y) - positives + 1))
    model.fit(x, y)
    return model.coef_[0], model.intercept_[0]


class _Head(Tagger):
    """The layers of a probe as a classifier of frames, for the loss of `train run`."""

    needs_features: ClassVar[bool] = True

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return the logits of the first frames."""
        assert features is not None
        return Output(self.layers(features[:labelled, 0]), features)


def _mlp_fits(probe: Probe, objective: Objective, batch: Batch, seed: int) -> Iterator[Row]:
    """Train with each weight decay from the same weights; the head has those of each epoch."""
    count = len(batch.features)
    first = {name: each.clone() for name, each in probe.head.state_dict().items()}
    with progress("fitting", len(WEIGHT_DECAYS) * EPOCHS) as advance:
        for decay in WEIGHT_DECAYS:
            probe.head.load_state_dict(first)
            optimizer = torch.optim.AdamW(
                probe.head.parameters(), lr=LEARNING_RATE, weight_decay=decay
            )
            order = np.random.default_rng((seed, 3))
            for epoch in range(1, EPOCHS + 1):
                for part in np.array_split(order.permutation(count), -(-count // BATCH_SIZE)):
                    chosen = torch.from_numpy(part)
                    some = Batch(*(each[chosen] for each in batch))
                    optimizer.zero_grad()
                    objective(some).total.backward()
                    optimizer.step()
                yield {"weight_decay": decay, "epoch": epoch}
                advance()
