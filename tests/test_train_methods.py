"""Every method with every encoder and any features: the paper's claim is a comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import write_toy
from toy_runs import CONREG, RECIPE

from featreg.train.config.config import Config
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.data.crops import Batch, Crops, Cutter
from featreg.train.experiments.params import count
from featreg.train.models.registry import ENCODERS, FUSIONS
from featreg.train.regularizers.registry import REGULARIZERS
from featreg.train.training.build import build_objective, crop_samples

METHODS = [(reg, "none") for reg in REGULARIZERS] + [("none", fusion) for fusion in FUSIONS[1:]]
FEATURES = [("tones",), ("noise",), ("tones", "noise"), ("noise", "tones")]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> AlignedSet:
    return AlignedSet(write_toy(tmp_path_factory.mktemp("work")))


def config(encoder: str, reg: str, fusion: str, features: tuple[str, ...]) -> Config:
    return dataclasses.replace(
        CONREG,
        reg=reg,
        fusion=fusion,
        features=() if reg == fusion == "none" else features,
        recipe=dataclasses.replace(RECIPE, encoder=encoder, crop_s=2.1),
    )


def batch(asked: Config, toy: AlignedSet) -> Batch:
    cutter = Cutter(toy, toy.split("train"), asked.features, crop_samples(asked.recipe, 16000))
    crops = Crops(cutter, seed=0)
    found = crops.batch([(0, clip) for clip in range(4)])
    if asked.reg == "scores":  # needs the probabilities of a teacher
        return found._replace(features=found.features.sigmoid())
    return found


@pytest.mark.parametrize("features", FEATURES, ids="+".join)
@pytest.mark.parametrize(("reg", "fusion"), METHODS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_method_learns_with_every_encoder_from_any_features(
    toy: AlignedSet, encoder: str, reg: str, fusion: str, features: tuple[str, ...]
) -> None:
    asked = config(encoder, reg, fusion, features)
    objective = build_objective(asked, toy)
    losses = objective(batch(asked, toy))
    losses.total.backward()
    assert losses.total.isfinite()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    expected = losses.task + asked.alpha * losses.regularization
    torch.testing.assert_close(losses.total, expected)
    assert (losses.regularization > 0) == (reg != "none")


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("reg", ["conreg", "disreg"])
def test_a_regularized_model_is_the_baseline_at_inference_with_any_encoder(
    toy: AlignedSet, encoder: str, reg: str
) -> None:
    plain, regularized = (
        build_objective(config(encoder, each, "none", ("tones",)), toy) for each in ("none", reg)
    )
    assert count(plain.tagger) == count(regularized.tagger)
    audio = torch.from_numpy(np.zeros((2, 33600), np.float32))
    # equal seeds start from equal weights, and no features come in
    assert torch.equal(plain.tagger.eval()(audio).logits, regularized.tagger.eval()(audio).logits)


def test_the_papers_weights_are_the_defaults(toy: AlignedSet) -> None:
    defaults = {}
    for reg in ("conreg", "disreg"):
        regularizer = build_objective(config("mel_cnn", reg, "none", ("tones",)), toy).regularizer
        assert regularizer is not None
        defaults[reg] = regularizer.default_alpha
    assert defaults == {"conreg": 5.0, "disreg": 1.0}


def test_conreg_over_devices_equals_conreg_of_the_whole_batch() -> None:
    """Averaged gradients of equal shares equal those of the batch."""
    from featreg.train.regularizers.conreg import ConReg

    torch.manual_seed(0)
    loss = ConReg(3, 2).double()
    L, V = torch.randn(6, 4, 2, dtype=torch.float64), torch.randn(6, 4, 3, dtype=torch.float64)
    loss(L, V).backward()
    assert loss.f.weight.grad is not None
    whole = loss.f.weight.grad.clone()
    loss.zero_grad()
    ((loss(L[:3], V[:3]) + loss(L[3:], V[3:])) / 2).backward()
    torch.testing.assert_close(loss.f.weight.grad, whole)
