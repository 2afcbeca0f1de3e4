"""Both losses of the paper: on paper, by slow loops, and by their gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from featreg.datasets.base import UsageError
from featreg.train.models.time import to_frames
from featreg.train.regularizers.base import Regularizer
from featreg.train.regularizers.conreg import ConReg
from featreg.train.regularizers.disreg import DisReg
from featreg.train.regularizers.registry import REGULARIZERS, build_regularizer

BATCH, T_E, T_F, B_E, B_F = 5, 3, 7, 4, 6


def same_space(dim: int) -> ConReg:
    """Con-Reg whose f is the identity."""
    loss = ConReg(dim, dim)
    with torch.no_grad():
        loss.f.weight.copy_(torch.eye(dim)[..., None])
        assert loss.f.bias is not None
        loss.f.bias.zero_()
    return loss


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(params=["conreg", "disreg"])
def regularizer(request: pytest.FixtureRequest) -> Regularizer:
    torch.manual_seed(0)
    loss = build_regularizer(request.param, B_F, B_E)
    assert loss is not None
    return loss.double()


def d_cos(a: Tensor, b: Tensor) -> float:
    """The definition, in plain floats."""
    x, y = a.tolist(), b.tolist()
    return 1 - sum(p * q for p, q in zip(x, y, strict=True)) / math.hypot(*x) / math.hypot(*y)


@pytest.mark.parametrize(("angle", "expected"), [(0, 0), (60, 0.5), (90, 1), (180, 2)])
def test_conreg_is_one_minus_the_cosine_of_the_angle(angle: float, expected: float) -> None:
    radians = math.radians(angle)
    L = torch.tensor([[[3.0, 0.0]]])
    V = 0.2 * torch.tensor([[[math.cos(radians), math.sin(radians)]]])
    # 1e-6: a few float32 roundings of numbers near 1
    assert same_space(2)(L, V).item() == pytest.approx(expected, abs=1e-6)


def test_disreg_of_known_angles() -> None:
    # Angles between clips: 90 and 180 degrees in L, 60 in V, for every pair but one.
    L = torch.tensor([[1.0, 0], [0, 2], [-1, 0]])[:, None]
    turn = torch.tensor([0, math.pi / 3, 2 * math.pi / 3])
    V = torch.stack((turn.cos(), turn.sin()), dim=-1)[:, None]
    # Distances of the pairs 01, 02, 12: in L 1, 2, 1; in V 0.5, 1.5, 0.5.
    assert DisReg()(L, V).item() == pytest.approx(0.5, abs=1e-6)


def test_disreg_reaches_zero_and_two() -> None:
    L = torch.tensor([[1.0, 0], [1, 0]])[:, None]
    opposite = torch.tensor([[1.0, 0], [-1, 0]])[:, None]
    assert DisReg()(L, 5 * L).item() == 0
    assert DisReg()(L, opposite).item() == 2


def test_conreg_equals_a_slow_loop() -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    loss = ConReg(B_F, B_E).double()
    assert loss.f.bias is not None
    matrix, bias = loss.f.weight[..., 0].detach(), loss.f.bias.detach()
    frames = to_frames(V, T_E)
    distances = [
        d_cos(L[i, t], matrix @ frames[i, t] + bias) for i in range(BATCH) for t in range(T_E)
    ]
    assert loss(L, V).item() == pytest.approx(sum(distances) / len(distances), rel=1e-12)


def test_disreg_equals_a_slow_loop() -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    frames = to_frames(V, T_E)
    differences = [
        abs(d_cos(L[i, t], L[j, t]) - d_cos(frames[i, t], frames[j, t]))
        for i, j in itertools.combinations(range(BATCH), 2)
        for t in range(T_E)
    ]
    expected = sum(differences) / len(differences)
    assert DisReg()(L, V).item() == pytest.approx(expected, rel=1e-12)


def test_gradients(regularizer: Regularizer) -> None:
    L = noise(BATCH, T_E, B_E).requires_grad_()
    V = noise(BATCH, T_F, B_F)
    parameters = tuple(regularizer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: regularizer(x, V), (L, *parameters))


def test_no_gradient_reaches_the_features(regularizer: Regularizer) -> None:
    L = noise(BATCH, T_E, B_E).requires_grad_()
    V = noise(BATCH, T_F, B_F).requires_grad_()
    regularizer(L, V).backward()
    assert L.grad is not None
    assert V.grad is None


def test_lengths_do_not_matter(regularizer: Regularizer) -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_E, B_F)
    lengths = 0.1 + noise(BATCH, T_E, 1).abs()
    torch.testing.assert_close(regularizer(lengths * L, V), regularizer(L, V))


def test_order_of_clips_does_not_matter(regularizer: Regularizer) -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(regularizer(L[order], V[order]), regularizer(L, V))


def test_disreg_is_invariant_to_rotations() -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    turned, _ = torch.linalg.qr(noise(B_E, B_E))
    turned_too, _ = torch.linalg.qr(noise(B_F, B_F))
    torch.testing.assert_close(DisReg()(L @ turned, V @ turned_too), DisReg()(L, V))


def test_masked_clips_do_not_matter(regularizer: Regularizer) -> None:
    L, V = noise(BATCH, T_E, B_E).requires_grad_(), noise(BATCH, T_F, B_F)
    mask = torch.tensor([1, 0, 1, 1, 0])
    spoilt = V.clone()
    spoilt[mask == 0] = torch.nan
    loss = regularizer(L, spoilt, mask)
    torch.testing.assert_close(loss, regularizer(L[mask == 1], V[mask == 1]))
    torch.testing.assert_close(loss, regularizer(L, spoilt, mask.bool()))
    loss.backward()
    assert L.grad is not None
    assert L.grad[mask == 0].eq(0).all()
    assert L.grad[mask == 1].ne(0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in regularizer.parameters())


def test_nothing_to_compare_is_zero(regularizer: Regularizer) -> None:
    L = noise(BATCH, T_E, B_E).requires_grad_()
    loss = regularizer(L, noise(BATCH, T_F, B_F), torch.zeros(BATCH))
    loss.backward()
    assert loss == 0
    assert L.grad is not None
    assert L.grad.eq(0).all()


def test_disreg_of_a_single_clip_is_zero() -> None:
    assert DisReg()(noise(1, T_E, B_E), noise(1, T_F, B_F)) == 0


def test_zero_vectors_are_at_distance_one_and_get_no_gradient() -> None:
    L = torch.zeros(2, 1, 3, requires_grad=True)
    V = noise(2, 1, 3, dtype=torch.float32)
    loss = same_space(3)(L, V)
    loss.backward()
    assert loss == 1
    assert L.grad is not None
    assert L.grad.eq(0).all()


def test_zero_vectors_give_no_nan(regularizer: Regularizer) -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    L[0], L[1, 0], V[0], V[2] = 0, 0, 0, 0
    L.requires_grad_()
    loss = regularizer(L, V)
    loss.backward()
    assert loss.isfinite()
    assert L.grad is not None
    assert L.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in regularizer.parameters())


def test_autocast_does_not_touch_the_loss(regularizer: Regularizer) -> None:
    regularizer.float()
    L = noise(BATCH, T_E, B_E, dtype=torch.bfloat16)
    V = noise(BATCH, T_F, B_F, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = regularizer(L, V)
    assert loss.dtype == torch.float32
    assert loss == regularizer(L.float(), V)


def test_shares_of_a_batch_average_to_the_mean_of_their_own_losses() -> None:
    """What data-parallel training computes: pairs lie within a device's share."""
    L, V = noise(6, T_E, B_E).requires_grad_(), noise(6, T_F, B_F)
    shares = [DisReg()(L[part], V[part]) for part in (slice(3), slice(3, 6))]
    pairs = [
        DisReg()(L[[i, j]], V[[i, j]])
        for part in (range(3), range(3, 6))
        for i, j in itertools.combinations(part, 2)
    ]
    torch.testing.assert_close(sum(shares) / 2, sum(pairs) / 6)


def test_every_name_builds_and_default_alphas_are_the_papers() -> None:
    built = {name: build_regularizer(name, B_F, B_E) for name in REGULARIZERS}
    alphas = {name: loss.default_alpha for name, loss in built.items() if loss is not None}
    assert alphas == {"conreg": 5, "disreg": 1, "hint": 5, "dcor": 1, "rkd": 1, "scores": 1}
    assert built["none"] is None
    with pytest.raises(UsageError, match=r"'con'.*none, conreg, disreg, hint"):
        build_regularizer("con", B_F, B_E)
