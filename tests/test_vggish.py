"""VGGish against the published implementation's numbers, and the contract of an extractor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file

from featreg.datasets.audio.decode import resample
from featreg.datasets.base import FeatregError
from featreg.extract.extractors.base import Precision
from featreg.extract.extractors.vggish import (
    SCOPES,
    Vggish,
    VggishConfig,
    from_tensorflow,
    mel_filters,
)

Array = npt.NDArray[Any]
Reference = Mapping[str, npt.NDArray[np.float32]]

# In the checkpoint's order and layout: (height, width, in, out) and (in, out).
CONVOLUTIONS = [(3, 3, a, b) for a, b in [(1, 64), (64, 128), (128, 256), (256, 256)]]
CONVOLUTIONS += [(3, 3, 256, 512), (3, 3, 512, 512)]
CONNECTED = [(12288, 4096), (4096, 4096), (4096, 128)]


@pytest.fixture(scope="module")
def weights(seeded: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reference's parameters, from the published layout into files of ours."""
    names = [f"conv{i}" for i in range(6)] + [f"fc{i}" for i in range(3)]
    variables: dict[str, Array] = {"vggish/conv1/weights/Adam": np.zeros(1)}
    for scope, name, shape in zip(SCOPES, names, CONVOLUTIONS + CONNECTED, strict=True):
        variables[f"vggish/{scope}/weights"] = seeded.kernel(f"vggish/{name}/kernel", shape)
        variables[f"vggish/{scope}/biases"] = seeded.array(f"vggish/{name}/bias", shape[-1:], 0.1)
    pca = {
        "eigen_vectors": seeded.array("vggish/pca/eigen_vectors", (128, 128), 0.1),
        "means": seeded.array("vggish/pca/means", (128, 1), 0.1).ravel(),
    }
    folder = tmp_path_factory.mktemp("weights")
    files = {name: folder / f"{name}.safetensors" for name in ("vggish", "vggish_pca")}
    found = {key: np.ascontiguousarray(array) for key, array in from_tensorflow(variables).items()}
    save_file(found, files["vggish"])
    save_file(pca, files["vggish_pca"])
    return files


@pytest.fixture(scope="module")
def vggish(weights: dict[str, Path]) -> Callable[..., Vggish]:
    """``vggish("raw")``, built once for each output and precision."""
    built: dict[tuple[str, str], Vggish] = {}

    def build(output: Any = "pca8", precision: Precision = "float32") -> Vggish:
        if (output, precision) not in built:
            extractor = Vggish(VggishConfig(output), weights, precision=precision)
            same = [other for (_, kind), other in built.items() if kind == precision]
            if same:  # the network is the same whatever is kept of it, and large
                extractor._embedding = same[0]._embedding
            built[output, precision] = extractor
        return built[output, precision]

    return build


@pytest.fixture(params=["mono16k", "stereo44k"])
def case(
    request: pytest.FixtureRequest,
    seeded: ModuleType,
    reference: Callable[[str], Reference],
) -> tuple[npt.NDArray[np.float32], Reference]:
    """A signal at 16 kHz, and what the published implementation makes of it."""
    name: str = request.param
    if name == "mono16k":
        signal = seeded.signal(3.0, 16000, 0)
    else:
        pytest.importorskip("resampy")
        channels = [seeded.signal(2.2, 44100, seed) for seed in (0, 1)]
        signal = resample(np.mean(channels, axis=0), 44100, 16000, "kaiser_best")
    values = {
        key.removeprefix(f"{name}/"): array
        for key, array in reference("vggish").items()
        if key.startswith(f"{name}/")
    }
    return signal, values


def test_equals_the_published_implementation(
    case: tuple[npt.NDArray[np.float32], Reference], vggish: Callable[..., Vggish]
) -> None:
    signal, expected = case
    raw = vggish("raw")
    examples = raw.inputs(signal, 0, raw.frames(len(signal)))
    # Both front ends are computed in float64 up to the magnitudes; float32 after that.
    np.testing.assert_allclose(examples, expected["log_mel"], rtol=0, atol=1e-5)
    for output, key in (("raw", "raw"), ("relu", "relu"), ("pca", "whitened")):
        found = vggish(output).network(examples)
        # float32 sums of up to 12,288 products, in another order than the published one.
        scale = float(np.abs(expected[key]).max())
        np.testing.assert_allclose(found, expected[key], rtol=0, atol=1e-4 * scale)
    pca8 = vggish("pca8")
    stored = pca8.quantize(pca8.network(examples))
    steps = (np.clip(expected["whitened"], -2, 2).astype(np.float64) + 2) * (255 / 4)
    # Where the rest of the sums' order lies on the other side of a step, one step.
    edge = np.abs(steps - np.rint(steps)) < 1e-2
    apart = np.abs(stored.astype(int) - expected["quantized"].astype(int))
    assert stored.dtype == np.uint8
    assert apart.max() <= 1
    assert not apart[~edge].any()


def test_bits_read_back_as_the_whitened_values(
    case: tuple[npt.NDArray[np.float32], Reference], vggish: Callable[..., Vggish]
) -> None:
    signal, _ = case
    pca8 = vggish("pca8")
    values = pca8.extract(signal) * pca8.quantization.scale + pca8.quantization.offset
    whitened = np.clip(vggish("pca").extract(signal), -2, 2)
    assert values.min() >= -2
    assert values.max() <= 2
    # Cutting the fraction off gives the step below, never more than one step away.
    assert np.all(whitened - values >= -1e-5)
    assert np.all(whitened - values <= 4 / 255 + 1e-5)


def test_bfloat16_points_the_same_way(
    case: tuple[npt.NDArray[np.float32], Reference], vggish: Callable[..., Vggish]
) -> None:
    signal, expected = case
    for output, key in (("raw", "raw"), ("pca", "whitened")):
        found = vggish(output, "bfloat16").extract(signal)
        assert found.dtype == np.float32
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected[key], axis=1)
        assert np.all(np.sum(found * expected[key], axis=1) / norms >= 0.999)


def test_filters_are_straight_in_mel() -> None:
    filters = mel_filters()
    assert filters.shape == (257, 64)
    assert not filters[0].any()
    mel = 1127 * np.log1p(np.arange(257) * 31.25 / 700)
    tops = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), 66)[1:-1]
    between = (mel >= tops[0]) & (mel <= tops[-1])
    # Neighbours rise and fall along one straight line, so they add up to 1 everywhere.
    np.testing.assert_allclose(filters[between].sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(filters[between] @ tops, mel[between], atol=1e-9)


def slow_log_mel(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The front end frame by frame, by the definition of the Fourier transform, in float64."""
    n = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    waves = np.exp(-2j * np.pi * np.outer(n, np.arange(257)) / 512)
    frames = []
    for frame in range(96):
        piece = samples[160 * frame : 160 * frame + 400].astype(np.float64)
        frames.append(np.log(np.abs((window * piece) @ waves) @ mel_filters() + 0.01))
    return np.stack(frames)


def test_front_end_is_exact_beside_a_loud_tone(vggish: Callable[..., Vggish]) -> None:
    t = np.arange(15600) / 16000
    sine = np.sin(2 * np.pi * 1013.7 * t).astype(np.float32)
    # The bands far from the tone hold almost nothing: what float32 leaves of the transform
    # there would be 1e-3 off.
    found = vggish().inputs(sine, 0, 1)[0]
    np.testing.assert_allclose(found, slow_log_mel(sine), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "rows"),
    [
        (1, 1),
        (15599, 1),
        (15600, 1),
        (15600 + 15359, 1),
        (15600 + 15360, 2),
        (160000, 10),  # 10 s
        (round(29.1 * 16000), 30),
    ],
)
def test_rows(vggish: Callable[..., Vggish], samples: int, rows: int) -> None:
    assert vggish().frames(samples) == rows


def test_a_short_clip_is_filled_up_with_zeros(vggish: Callable[..., Vggish]) -> None:
    short = np.full(8000, 0.1, np.float32)
    examples = vggish().inputs(short, 0, 1)
    filled = np.concatenate([short, np.zeros(7600, np.float32)])
    np.testing.assert_array_equal(examples, vggish().inputs(filled, 0, 1))
    # Silence is log(0.01) in every band.
    np.testing.assert_allclose(examples[0, 60:], np.log(0.01), rtol=1e-6)


def test_inputs_of_some_rows_are_those_rows(
    vggish: Callable[..., Vggish], seeded: ModuleType
) -> None:
    signal = seeded.signal(8.0, 16000, 1)
    every = vggish().inputs(signal, 0, 8)
    np.testing.assert_array_equal(vggish().inputs(signal, 3, 6), every[3:6])


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_has_the_same_bits_in_any_company(
    vggish: Callable[..., Vggish],
    seeded: ModuleType,
    threads: Callable[[int], None],
    precision: Precision,
) -> None:
    raw = vggish("raw", precision)
    examples = raw.inputs(seeded.signal(35.0, 16000, 2), 0, 36)  # more than one block
    threads(1)
    together = raw.network(examples)
    np.testing.assert_array_equal(raw.network(examples[30:20:-1].copy()), together[30:20:-1])
    threads(2)
    np.testing.assert_array_equal(raw.network(examples), together)


def test_the_network_is_loaded_when_it_is_needed(tmp_path: Path) -> None:
    extractor = Vggish(VggishConfig(), {"vggish": tmp_path / "none", "vggish_pca": tmp_path / "no"})
    assert extractor.frames(16000) == 1
    assert extractor.inputs(np.zeros(16000, np.float32), 0, 1).shape == (1, 96, 64)
    with pytest.raises(FeatregError, match=r"none: .*FileNotFoundError"):
        extractor.extract(np.zeros(16000, np.float32))


def test_the_pca_is_asked_for_where_it_is_used() -> None:
    assert Vggish.weight_names(VggishConfig("pca8")) == ("vggish", "vggish_pca")
    assert Vggish.weight_names(VggishConfig("pca")) == ("vggish", "vggish_pca")
    assert Vggish.weight_names(VggishConfig("raw")) == ("vggish",)
    assert Vggish.weight_names(VggishConfig("relu")) == ("vggish",)
