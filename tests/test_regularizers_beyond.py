"""The regularizers beyond the paper: closed forms, slow loops, gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.models.time import to_frames
from featreg.train.regularizers.base import Regularizer
from featreg.train.regularizers.dcor import DistanceCorrelation
from featreg.train.regularizers.hint import Hint
from featreg.train.regularizers.registry import build_regularizer
from featreg.train.regularizers.rkd import RKD
from featreg.train.regularizers.scores import Scores

BATCH, T_E, T_F, B_E, B_F = 6, 3, 7, 4, 5


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def features(name: str) -> Tensor:
    """Of BATCH clips; `scores` needs probabilities."""
    values = noise(BATCH, T_F, B_F)
    return values.sigmoid() if name == "scores" else values


@pytest.fixture(params=["hint", "dcor", "rkd", "scores"])
def named(request: pytest.FixtureRequest) -> tuple[str, Regularizer]:
    torch.manual_seed(0)
    loss = build_regularizer(request.param, B_F, B_E)
    assert loss is not None
    return request.param, loss.double()


def test_gradients(named: tuple[str, Regularizer]) -> None:
    name, loss = named
    L = noise(BATCH, T_E, B_E).requires_grad_()
    parameters = tuple(loss.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: loss(x, features(name)), (L, *parameters))


def test_no_gradient_reaches_the_features(named: tuple[str, Regularizer]) -> None:
    name, loss = named
    L, V = noise(BATCH, T_E, B_E).requires_grad_(), features(name).requires_grad_()
    loss(L, V).backward()
    assert L.grad is not None
    assert L.grad.ne(0).any()
    assert V.grad is None


def test_mask_leaves_out_clips_whatever_their_features(named: tuple[str, Regularizer]) -> None:
    name, loss = named
    L, V = noise(BATCH, T_E, B_E).requires_grad_(), features(name)
    mask = torch.tensor([1, 0, 1, 1, 1, 0])
    spoilt = V.clone()
    spoilt[mask == 0] = torch.nan
    masked = loss(L, spoilt, mask)
    torch.testing.assert_close(masked, loss(L[mask == 1], V[mask == 1]))
    masked.backward()
    assert L.grad is not None
    assert L.grad[mask == 0].eq(0).all()


def test_nothing_to_compare_is_zero(named: tuple[str, Regularizer]) -> None:
    name, loss = named
    L = noise(BATCH, T_E, B_E).requires_grad_()
    found = loss(L, features(name), torch.zeros(BATCH))
    found.backward()
    assert found == 0
    assert L.grad is not None
    assert L.grad.eq(0).all()


def test_equal_clips_and_zero_vectors_give_no_nan(named: tuple[str, Regularizer]) -> None:
    name, loss = named
    L, V = noise(BATCH, T_E, B_E), features(name)
    L[0], L[1], V[0], V[2] = 0, L[2], 0, V[1]
    L.requires_grad_()
    found = loss(L, V)
    found.backward()
    assert found.isfinite()
    assert L.grad is not None
    assert L.grad.isfinite().all()


def test_all_clips_equal_is_finite(named: tuple[str, Regularizer]) -> None:
    name, loss = named
    L = torch.ones(BATCH, T_E, B_E, dtype=torch.float64, requires_grad=True)
    found = loss(L, features(name))
    found.backward()
    assert found.isfinite()
    assert L.grad is not None
    assert L.grad.isfinite().all()


def identity_hint(distance: str) -> Hint:
    """Hint whose map is the identity for positive embeddings."""
    loss = Hint(B_E, B_E, hidden=B_E, distance=distance).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in (loss.g[0], loss.g[2]):
            layer.weight.copy_(torch.eye(B_E))
            layer.bias.zero_()
    return loss


@pytest.mark.parametrize(("angle", "expected"), [(0, 0), (60, 0.5), (90, 1)])
def test_hint_is_one_minus_the_cosine_of_the_angle(angle: float, expected: float) -> None:
    radians = math.radians(angle)
    L = torch.tensor([[[3.0, 0, 0, 0]]], dtype=torch.float64)
    V = torch.tensor([[[math.cos(radians), math.sin(radians), 0, 0]]], dtype=torch.float64)
    assert identity_hint("cosine")(L, V).item() == pytest.approx(expected, abs=1e-12)


def test_squared_hint_is_the_mean_squared_error() -> None:
    L, V = noise(BATCH, T_E, B_E).abs(), noise(BATCH, T_F, B_E)
    frames = to_frames(V, T_E)
    expected = sum(
        (L[i, t, d] - frames[i, t, d]).item() ** 2
        for i, t, d in itertools.product(range(BATCH), range(T_E), range(B_E))
    )
    expected /= BATCH * T_E * B_E
    assert identity_hint("squared")(L, V).item() == pytest.approx(expected, rel=1e-12)


def test_hint_cannot_be_satisfied_by_a_constant_direction() -> None:
    """Opposite features of two clips with one embedding: the mean loss is 1 for any map."""
    L = torch.ones(2, 1, B_E, dtype=torch.float64)
    V = torch.stack([torch.ones(1, B_E), -torch.ones(1, B_E)]).double()
    assert identity_hint("cosine")(L, V).item() == pytest.approx(1.0, abs=1e-12)


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(UsageError, match="'cosin'"):
        Hint(2, 2, distance="cosin")  # type: ignore[arg-type]


def distance(a: Tensor, b: Tensor) -> float:
    return math.dist(a.tolist(), b.tolist())


def slow_dcor(x: Tensor, y: Tensor) -> float:
    """Bias-corrected distance correlation of (n, dims), by loops."""
    n = len(x)
    matrices = []
    for points in (x, y):
        a = [[distance(points[i], points[j]) for j in range(n)] for i in range(n)]
        total = sum(map(sum, a))
        matrices.append(
            [
                [
                    0.0
                    if i == j
                    else a[i][j]
                    - sum(a[i]) / (n - 2)
                    - sum(a[j]) / (n - 2)
                    + total / ((n - 1) * (n - 2))
                    for j in range(n)
                ]
                for i in range(n)
            ]
        )

    def inner(p: list[list[float]], q: list[list[float]]) -> float:
        return sum(p[i][j] * q[i][j] for i in range(n) for j in range(n))

    A, B = matrices
    return inner(A, B) / math.sqrt(inner(A, A) * inner(B, B))


def test_dcor_equals_a_slow_loop() -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    frames = to_frames(V, T_E)
    expected = sum(1 - slow_dcor(L[:, t], frames[:, t]) for t in range(T_E)) / T_E
    assert DistanceCorrelation()(L, V).item() == pytest.approx(expected, rel=1e-10)


def test_dcor_is_zero_for_scaled_and_rotated_copies() -> None:
    L = noise(BATCH, T_E, B_E)
    turned, _ = torch.linalg.qr(noise(B_E, B_E))
    assert DistanceCorrelation()(L, 3 * L @ turned + 1).item() == pytest.approx(0, abs=1e-12)


def test_dcor_of_independent_points_is_about_one() -> None:
    """The estimator is unbiased: the loss is 1 in the mean, within its spread over 50 draws."""
    generator = torch.Generator().manual_seed(0)
    found = [
        DistanceCorrelation()(*torch.randn(2, 16, 1, 8, generator=generator)).item()
        for _ in range(50)
    ]
    assert sum(found) / 50 == pytest.approx(1.0, abs=0.05)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def test_rkd_equals_a_slow_loop() -> None:
    L, V = noise(BATCH, T_E, B_E), noise(BATCH, T_F, B_F)
    frames = to_frames(V, T_E)
    distances, angles = [], []
    for t in range(T_E):
        scaled, cosines = [], []
        for x in (L[:, t], frames[:, t]):
            pairs = [distance(x[i], x[j]) for i, j in itertools.combinations(range(BATCH), 2)]
            scaled.append([each / (sum(pairs) / len(pairs)) for each in pairs])
            found = []
            for j in range(BATCH):
                others = [i for i in range(BATCH) if i != j]
                for i, k in itertools.combinations(others, 2):
                    p, q = x[i] - x[j], x[k] - x[j]
                    found.append((p @ q / p.norm() / q.norm()).item())
            cosines.append(found)
        distances += [huber(a - b) for a, b in zip(*scaled, strict=True)]
        angles += [huber(a - b) for a, b in zip(*cosines, strict=True)]
    expected = sum(distances) / len(distances) + 2 * sum(angles) / len(angles)
    assert RKD()(L, V).item() == pytest.approx(expected, rel=1e-10)


def test_rkd_of_a_triangle_on_paper() -> None:
    """An equilateral triangle against an isosceles one with a right angle."""
    L = torch.tensor([[0.0, 0], [1, 0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)[:, None]
    V = torch.tensor([[0.0, 0], [1, 0], [0, 1]], dtype=torch.float64)[:, None]
    mean = (2 + math.sqrt(2)) / 3
    distances = (2 * huber(1 - 1 / mean) + huber(1 - math.sqrt(2) / mean)) / 3
    angles = (huber(0.5 - 0) + 2 * huber(0.5 - math.sqrt(0.5))) / 3
    assert RKD()(L, V).item() == pytest.approx(distances + 2 * angles, rel=1e-12)
    assert RKD(angle_weight=0)(L, V).item() == pytest.approx(distances, rel=1e-12)


def test_scores_is_the_divergence_of_the_probabilities() -> None:
    loss = Scores(1, 1).double()
    with torch.no_grad():
        loss.head.weight.fill_(1.0)
        assert loss.head.bias is not None
        loss.head.bias.zero_()
    p, q = 0.9, 0.25
    L = torch.tensor([[[math.log(q / (1 - q))]]], dtype=torch.float64)
    V = torch.tensor([[[p]]], dtype=torch.float64)
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert loss(L, V).item() == pytest.approx(expected, rel=1e-12)
    assert loss(L, torch.tensor([[[q]]], dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)


def test_scores_refuse_what_is_no_probability() -> None:
    with pytest.raises(FeatregError, match=r"\[0, 1\].*-1"):
        Scores(2, 2)(torch.ones(1, 1, 2), torch.tensor([[[0.5, -1.0]]]))
