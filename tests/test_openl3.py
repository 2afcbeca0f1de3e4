"""OpenL3 against the published implementation's numbers, and the contract of an extractor."""

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
from weight_files import openl3_layers

from featreg.datasets.audio.decode import Resampler, resample
from featreg.datasets.base import UsageError
from featreg.extract.extractors.openl3 import Network, OpenL3, OpenL3Config, from_keras
from featreg.extract.extractors.openl3_frontend import hann, make_front_end

Floats = npt.NDArray[np.float32]
Reference = Mapping[str, npt.NDArray[Any]]
RATE = 48000
REPRESENTATIONS = ("mel256", "mel128", "linear")


@pytest.fixture(scope="module")
def weights(seeded: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reference's parameters, from the published layout into files of ours."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for representation in REPRESENTATIONS:
        layers = [
            (name, list(arrays.values())) for name, arrays in openl3_layers(seeded, representation)
        ]
        files[representation] = folder / f"{representation}.safetensors"
        arrays = from_keras(layers)
        save_file(
            {key: np.ascontiguousarray(a) for key, a in arrays.items()}, files[representation]
        )
    return files


@pytest.fixture(scope="module")
def openl3(weights: dict[str, Path]) -> Callable[..., OpenL3]:
    """``openl3(hop=0.5)``; extractors of the same representation and precision share a network."""
    networks: dict[tuple[str, str], Any] = {}

    def build(precision: Any = "float32", **choices: Any) -> OpenL3:
        config = OpenL3Config(**choices)
        (name,) = OpenL3.weight_names(config)
        extractor = OpenL3(config, {name: weights[config.input_repr]}, precision=precision)
        key = (config.input_repr, precision)
        if key not in networks:
            networks[key] = extractor._network
        extractor._network = networks[key]
        return extractor

    return build


@pytest.fixture
def published(reference: Callable[[str], Reference]) -> Reference:
    return reference("openl3")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def cosines(found: Floats, expected: Floats) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray(np.sum(found * expected, axis=1, dtype=np.float64) / norms)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("frontend", ["openl3-0.4", "trained"])
def test_front_ends_equal_the_published_ones(
    seeded: ModuleType, published: Reference, representation: Any, frontend: Any
) -> None:
    signal = seeded.signal(1.7, RATE, 0)
    windows = np.stack([signal[:RATE], np.pad(signal[RATE // 2 :], (0, RATE))[:RATE]])
    found = make_front_end(representation, frontend)(windows)
    suffix = "_trained" if frontend == "trained" else ""
    expected = published[f"{representation}/frontend{suffix}"]
    assert found.shape == expected.shape
    apart = np.abs(found - expected)
    if frontend == "trained":
        # That reference sums its Fourier transform term by term in float32: the rounding,
        # about 1.2e-7 of the loudest bin, is more than 1e-3 dB from some 33 dB below it on.
        magnitudes_apart = np.abs(10 ** (found / 10) - 10 ** (expected / 10))
        apart[magnitudes_apart <= np.finfo(np.float32).eps] = 0
    assert apart.max() <= 1e-3


def test_the_window_is_the_published_one_to_the_bit() -> None:
    exact = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    found = hann(512)
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-7)
    # From tf.signal.hann_window(512) of TensorFlow 2.15; the nearest float32 differs at 37.
    published = [3.764033317565918e-05, 0.05066275596618652, 0.3315550684928894, 1.0]
    assert found[[1, 37, 100, 256]].tolist() == published


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("size", [512, 6144])
def test_embeddings_and_times_equal_the_published_ones(
    openl3: Callable[..., OpenL3],
    seeded: ModuleType,
    published: Reference,
    representation: str,
    size: int,
) -> None:
    hop = 0.1 if (representation, size) == ("mel256", 512) else 0.5
    extractor = openl3(input_repr=representation, embedding_size=size, hop=hop)
    found = extractor.extract(seeded.signal(1.7, RATE, 0))
    expected = published[f"{representation}/{size}/embedding"]
    assert found.dtype == np.float32
    # float32 sums of up to 4,608 products through eight layers, in another order.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    centers = extractor.timing.centers(len(found))
    np.testing.assert_allclose(centers, published[f"{representation}/{size}/time"], atol=1e-12)


def test_a_short_clip_is_one_row(
    openl3: Callable[..., OpenL3], seeded: ModuleType, published: Reference
) -> None:
    found = openl3().extract(seeded.signal(0.3, RATE, 0))
    expected = published["mel256/512/short/embedding"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        ("kaiser_best", 1e-5),  # the published package's own
        # Nearly nothing is left above 20 kHz, and the decibels show how nearly.
        ("soxr_hq", 0.1),
    ],
)
def test_stereo_at_another_rate(
    openl3: Callable[..., OpenL3],
    seeded: ModuleType,
    published: Reference,
    method: Resampler,
    tolerance: float,
) -> None:
    if method == "kaiser_best":
        pytest.importorskip("resampy")
    mono = np.mean([seeded.signal(1.3, 44100, seed) for seed in (0, 1)], axis=0)
    extractor = openl3(hop=0.5, center=False)
    found = extractor.extract(resample(mono, 44100, RATE, method))
    expected = published["mel256/512/stereo44k/embedding"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    # Published times are the windows' starts where these are not centered.
    starts = extractor.timing.centers(len(found)) - extractor.timing.window_s / 2
    np.testing.assert_allclose(starts, published["mel256/512/stereo44k/time"], atol=1e-12)


@pytest.mark.parametrize("size", [512, 6144])
def test_bfloat16_points_the_same_way(
    openl3: Callable[..., OpenL3], seeded: ModuleType, published: Reference, size: int
) -> None:
    hop = 0.1 if size == 512 else 0.5
    found = openl3("bfloat16", embedding_size=size, hop=hop).extract(seeded.signal(1.7, RATE, 0))
    assert found.dtype == np.float32
    assert cosines(found, published[f"mel256/{size}/embedding"]).min() >= 0.999


def test_a_gpus_way_of_computing_gives_the_same(
    weights: dict[str, Path], openl3: Callable[..., OpenL3], seeded: ModuleType
) -> None:
    extractor = openl3(hop=0.5)
    # Written so, the CPU does what a GPU would do.
    plain = OpenL3(extractor.config, {"openl3-mel256-music": weights["mel256"]}, device="cpu:0")
    inputs = extractor.inputs(seeded.signal(1.7, RATE, 0), 0, 2)
    expected = extractor.network(inputs)
    np.testing.assert_allclose(
        plain.network(inputs), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("choices", "samples", "rows"),
    [
        ({}, 1, 1),
        ({}, 24000, 1),
        ({}, 24001, 2),
        ({}, 24000 + 4800, 2),
        ({}, round(29.1 * RATE), 287),
        ({"center": False}, 48000, 1),
        ({"center": False}, 48001, 2),
        ({"center": False, "hop": 1.0}, 10 * RATE, 10),
        ({"hop": 0.0001}, 24001, 2),  # 4.8 samples, cut to 4
        ({"hop": 0.0001}, 24005, 3),
    ],
)
def test_rows(choices: dict[str, Any], samples: int, rows: int) -> None:
    extractor = OpenL3(OpenL3Config(**choices), {})
    assert extractor.frames(samples) == rows
    # The last window reaches the last sample, the one before it does not.
    ends = extractor.timing.centers(rows) * RATE + RATE / 2
    assert ends[-1] >= samples - 1e-6
    assert np.all(ends[:-1] < samples - 1e-6)


@pytest.mark.parametrize("hop", [0.0, -0.1, 1.01, 1e-5, float("nan"), float("inf")])
def test_a_hop_that_skips_or_stands_still_is_refused(hop: float) -> None:
    with pytest.raises(UsageError, match=r"openl3\.hop=.*expected"):
        OpenL3Config(hop=hop)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("frontend", ["openl3-0.4", "trained"])
def test_silence_is_0_db_everywhere(representation: Any, frontend: Any) -> None:
    front_end = make_front_end(representation, frontend)
    assert not front_end(np.zeros((2, RATE), np.float32)).any()


def test_inputs_of_some_rows_are_those_rows_and_no_more(seeded: ModuleType) -> None:
    signal = seeded.signal(3.0, RATE, 1)
    extractor = OpenL3(OpenL3Config(), {})
    every = extractor.inputs(signal, 0, extractor.frames(len(signal)))
    assert np.ptp(every, axis=(1, 2)).max() <= 80
    np.testing.assert_array_equal(extractor.inputs(signal, 3, 6), every[3:6])
    # Ten minutes cost what their rows cost: the rest of the clip is not looked at.
    long = np.full(600 * RATE, np.nan, np.float32)
    long[10 * RATE : 12 * RATE] = signal[: 2 * RATE]
    assert np.all(np.isfinite(extractor.inputs(long, 105, 116)))


@pytest.mark.parametrize("samples", [1, 14400])
def test_tiny_clips_are_one_finite_row(openl3: Callable[..., OpenL3], samples: int) -> None:
    found = openl3().extract(np.full(samples, 0.5, np.float32))
    assert found.shape == (1, 512)
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_has_the_same_bits_in_any_company(
    openl3: Callable[..., OpenL3],
    seeded: ModuleType,
    threads: Callable[[int], None],
    precision: str,
) -> None:
    extractor = openl3(precision, input_repr="mel128")
    signal = seeded.signal(1.0, RATE, 2)
    threads(1)
    inputs = extractor.inputs(signal, 0, 6)
    rows = extractor.network(inputs)
    np.testing.assert_array_equal(extractor.network(inputs[1:4]), rows[1:4])
    np.testing.assert_array_equal(extractor.network(inputs[::-1].copy()), rows[::-1])
    threads(2)
    np.testing.assert_array_equal(extractor.inputs(signal, 0, 6), inputs)
    np.testing.assert_array_equal(
        extractor.network(np.tile(inputs, (3, 1, 1))), np.tile(rows, (3, 1))
    )


def test_keras_layers_count_by_order_and_not_by_name(seeded: ModuleType) -> None:
    layers = [(name, list(arrays.values())) for name, arrays in openl3_layers(seeded, "mel128")]
    state = from_keras(layers)
    with torch.device("meta"):
        expected = {
            key: tuple(values.shape)
            for key, values in Network().state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
    assert {key: array.shape for key, array in state.items()} == expected
    kernel = seeded.kernel("openl3/mel128/conv2/kernel", (3, 3, 64, 128))
    assert state["conv2.weight"][5, 7, 0, 2] == kernel[0, 2, 7, 5]
    variance = seeded.batch_norm("openl3/mel128/bn7", 512)["variance"]
    np.testing.assert_array_equal(state["bn7.running_var"], variance)


def test_other_keras_files_are_refused(seeded: ModuleType) -> None:
    layers = [(name, list(arrays.values())) for name, arrays in openl3_layers(seeded, "mel128")]
    with pytest.raises(ValueError, match=r"8 batch norms and 8 conv.*found 8 and 7"):
        from_keras(layers[:-2])
    dense = ("dense_3", [np.zeros((512, 10)), np.zeros(10)])
    with pytest.raises(ValueError, match=r"layer dense_3: expected.*found \(512, 10\), \(10,\)"):
        from_keras([*layers, dense])
