"""Winograd's convolutions against plain ones in float64, and the threads they run on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import make_dataset
from torch import Tensor

from featreg.extract.conv import grouped_matmul as products
from featreg.extract.conv.kernels import filters_at_points
from featreg.extract.conv.make_stack import Convolution, PlainStack, apply, make_stack
from featreg.extract.conv.threads import in_threads
from featreg.extract.conv.winograd import WinogradStack
from featreg.extract.extractors import registry
from featreg.extract.inspection.doctor import check_processor

Layers = list[Convolution]


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(*layers: tuple[int, bool, bool], seed: int = 0) -> Layers:
    """Layers of (channels out, relu, pool), He-scaled, after an image of one channel."""
    generator = torch.Generator().manual_seed(seed)
    stack, inputs = [], 1
    for outputs, relu, pool in layers:
        weight = torch.randn((outputs, inputs, 3, 3), generator=generator)
        bias = torch.randn(outputs, generator=generator)
        stack.append(Convolution(weight * (2 / (9 * inputs)) ** 0.5, bias, relu, pool))
        inputs = outputs
    return stack


def slowly(layers: Layers, images: Tensor) -> Tensor:
    """The same in float64."""
    maps = images[:, None].double()
    for layer in layers:
        maps = apply(
            Convolution(layer.weight.double(), layer.bias.double(), layer.relu, layer.pool), maps
        )
    return maps.permute(0, 2, 3, 1)


STACKS = {
    "pooled": draw((16, True, False), (16, True, True), (32, True, False), (24, False, False)),
    "pooled at once": draw((5, True, False), (7, True, True), (3, False, True)),
    "pooled from the start": draw((6, True, True), (8, True, True), (4, False, False)),
    # Channels are interpolated 64 at a time.
    "more channels": draw((70, True, False), (130, True, False), (64, False, True)),
    "without ReLU": draw((8, False, False), (8, False, False)),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("size", [(16, 16), (33, 50), (19, 21), (8, 8)])
@pytest.mark.parametrize("count", [1, 5])
def test_equals_the_plain_convolution(stack: str, size: tuple[int, int], count: int) -> None:
    layers = STACKS[stack]
    images = torch.randn(count, *size, generator=torch.Generator().manual_seed(1))
    expected = slowly(layers, images)
    scale = float(expected.abs().max())
    fast = WinogradStack(layers, *size, "float32")
    for _ in range(2):  # the second time in memory that has been used
        # float32: some ten roundings of 6e-8 a layer, on values a few times the output's.
        torch.testing.assert_close(fast(images).double(), expected, rtol=0, atol=5e-6 * scale)
    plain = PlainStack(layers)(images)
    torch.testing.assert_close(plain.double(), expected, rtol=0, atol=5e-6 * scale)


def test_bfloat16_rounds_little_more_than_the_plain_convolution() -> None:
    layers = draw((64, True, False), (64, True, True), (128, True, False), (128, False, False))
    images = torch.randn(4, 40, 40, generator=torch.Generator().manual_seed(2))
    expected = slowly(layers, images)

    def distance(maps: Tensor) -> float:
        return float((maps.double() - expected).norm() / expected.norm())

    plain = distance(PlainStack(layers, precision="bfloat16")(images))
    fast = distance(WinogradStack(layers, 40, 40, "bfloat16")(images))
    # Three times, where the customary points 0, 1, -1, 2, -2 are seven times as far off.
    assert fast < 5 * plain < 0.05


def test_the_cpu_takes_the_fast_way() -> None:
    layers = STACKS["pooled"]
    assert isinstance(make_stack(layers, 16, 16, "cpu", "float32"), WinogradStack)
    assert isinstance(make_stack(layers, 16, 16, "meta", "float32"), PlainStack)


def test_a_filter_of_one_tap_has_that_tap_at_every_point() -> None:
    # The polynomial of the first tap alone is constant, and infinity sees none of it.
    weight = np.zeros((1, 1, 3, 3), np.float32)
    weight[0, 0, 0, 0] = 3.0
    points = filters_at_points(weight).reshape(6, 6)
    weights = np.array([1, -2 / 3, -2 / 3, 1 / 6, 1 / 6, 0])
    np.testing.assert_allclose(points, 3 * np.outer(weights, weights), rtol=1e-6)


def test_threads_of_the_pool_have_one_thread_each() -> None:
    torch.set_num_threads(3)
    counts = in_threads(lambda _: torch.get_num_threads(), range(9))
    assert counts == [1] * 9
    assert torch.get_num_threads() == 3
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]


def test_results_come_in_order_and_errors_come_out() -> None:
    torch.set_num_threads(2)
    assert in_threads(lambda n: n * n, range(20)) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // n, range(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [True, False], ids=["oneDNN", "without"])
def test_products(dtype: torch.dtype, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not packed:  # as where torch or the processor cannot
        monkeypatch.setattr(products, "pack", lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn((36, 24, 40), generator=generator).to(dtype).float()
    factors = torch.randn((50, 36, 24), generator=generator).to(dtype)
    multiply = products.Products(matrices, dtype, 48)
    found = multiply(factors)
    assert found.is_contiguous()
    assert found.dtype == dtype
    expected = torch.einsum("rpi,pio->rpo", factors.double(), matrices.double())
    # The sum is float32's; then it is rounded once: half a unit in the last of 8 bits.
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-8, "atol": 1e-4}
    )
    torch.testing.assert_close(found.double(), expected, **tolerance)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_operators_that_another_torch_lacks_or_calls_otherwise_are_done_without(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", refuse)
    assert products.pack(torch.ones(2, 3, 4), torch.float32, 5) is None


@pytest.mark.parametrize("packed", [True, False], ids=["oneDNN", "without"])
def test_the_slower_way_is_named_once_and_by_the_doctor(
    packed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not packed:
        monkeypatch.setattr(products, "pack", lambda *_: None)
    elif products.why_slow():
        pytest.skip("this torch or processor has no grouped products")
    said: list[str] = []
    monkeypatch.setattr(registry, "warn", said.append)
    dataset = make_dataset(tmp_path, {"train": 1})
    registry.make_specs(dataset, "vggish,openl3", (), (), "cpu", "float32", fetch=False)
    assert [torch.__version__ in each for each in said] == ([] if packed else [True])
    registry.make_specs(dataset, "musicnn", (), (), "cpu", "float32", fetch=False)
    assert len(said) == (not packed)
    notes = [each for each in check_processor() if "grouped products" in each.text]
    assert [each.level for each in notes] == ([] if packed else ["note"])
