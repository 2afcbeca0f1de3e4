"""musicnn with its trained weights against the published package's numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from featreg.datasets.base import UsageError
from featreg.extract.extractors.musicnn import Musicnn, MusicnnConfig, joined, log_mel
from featreg.extract.extractors.musicnn_network import (
    CONVOLUTIONS,
    PATCH,
    TEMPORAL,
    TIMBRAL,
    Network,
    Output,
    PooledConvolution,
    from_tensorflow,
)
from featreg.extract.weights.registry import known

Array = npt.NDArray[Any]
Reference = Mapping[str, npt.NDArray[np.float32]]

OUTPUTS: tuple[Output, ...] = get_args(Output)
# The published package's max_pool of MTT, where it is 31, is itself 1.8e-4 away from what
# float64 gives: its mid-end adds 3927 float32 products one by one.
TOLERANCE = {"MSD": 1e-4, "MTT": 2e-4}


def extractor(output: Output = "mean_pool", model: Any = "MSD", **options: Any) -> Musicnn:
    config = MusicnnConfig(output, model)
    (name,) = Musicnn.weight_names(config)
    path = known(name).shipped
    if not path.is_file():
        path = Path(os.environ.get("FEATREG_WEIGHTS", ""), f"{name}.safetensors")
        if not path.is_file():
            pytest.skip(f"the folder FEATREG_WEIGHTS with {path.name} is not here")
    return Musicnn(config, {name: path}, **options)


@pytest.fixture(scope="module")
def msd() -> Musicnn:
    """The default: mean_pool of MSD."""
    return extractor()


@pytest.fixture(scope="module")
def signal(seeded: ModuleType) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = seeded.signal(10.0, 16000, 0)
    return found


def check_penultimate(found: Array, reference: Reference, prefix: str, model: str) -> None:
    """The published package repeats a clip's first row; the taggram tells the others."""
    published = reference[f"{prefix}/penultimate"]
    np.testing.assert_array_equal(published, np.broadcast_to(published[0], published.shape))
    np.testing.assert_allclose(found[0], published[0], rtol=0, atol=TOLERANCE[model])
    weights = load_file(extractor(model=model).weights[f"musicnn-{model.lower()}"])
    logits = found @ weights["back.tags.weight"].T + weights["back.tags.bias"]
    tags = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(tags, reference[f"{prefix}/taggram"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["MSD", "MTT"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_seeded_signal_gives_the_published_numbers(
    model: str,
    output: Output,
    signal: npt.NDArray[np.float32],
    reference: Callable[[str], Reference],
) -> None:
    published = reference("musicnn")
    prefix = f"{model}_musicnn/signal"
    found = extractor(output, model).extract(signal)
    assert found.dtype == np.float32
    assert found.shape == published[f"{prefix}/{output}"].shape
    if output == "penultimate":
        check_penultimate(found, published, prefix, model)
    else:
        expected = published[f"{prefix}/{output}"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[model])


@pytest.mark.parametrize("output", OUTPUTS)
def test_real_clip_gives_the_published_numbers(
    output: Output, shared: Path, reference: Callable[[str], Reference]
) -> None:
    (path,) = (shared / "data/audio").glob("*.mp3")
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    assert samples.ndim == 1
    published = reference("musicnn")
    found = extractor(output).extract(samples)
    if output == "penultimate":
        check_penultimate(found, published, "MSD_musicnn/joram", "MSD")
        return
    expected = published[f"MSD_musicnn/joram/{output}"]
    assert found.shape == expected.shape == (27, extractor(output).dim)
    # The clip is at 16 kHz already, and one version of a decoder differs from another by
    # some 1e-7 of full scale. That moves mel powers across a border of float16 here and
    # there, a step of 4e-4 in one of the 17,952 cells of a patch: nothing in a mean, up to
    # 2e-3 in a maximum (seen with float64 mel powers), whose largest value is 113.
    atol = 2.5e-3 if output == "max_pool" else 1e-4
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_bfloat16_keeps_the_direction(msd: Musicnn, signal: npt.NDArray[np.float32]) -> None:
    exact, reduced = msd.extract(signal), extractor(precision="bfloat16").extract(signal)
    assert reduced.dtype == np.float32
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(reduced, axis=1)
    assert ((exact * reduced).sum(axis=1) / norms).min() >= 0.999


def test_what_shares_a_batch_changes_nothing(
    msd: Musicnn, signal: npt.NDArray[np.float32], seeded: ModuleType
) -> None:
    inputs = msd.inputs(signal, 0, 8)
    other = msd.inputs(seeded.signal(5.0, 16000, 1), 0, 3)
    together = msd.network(np.concatenate((other, inputs)))[3:]
    singly = np.concatenate([msd.network(inputs[i : i + 1]) for i in range(8)])
    # A convolution adds in an order of its own for each batch size: seen 3e-6.
    np.testing.assert_allclose(together, singly, rtol=0, atol=1e-5)


def test_the_number_of_threads_changes_no_bit(
    msd: Musicnn, signal: npt.NDArray[np.float32]
) -> None:
    inputs = np.tile(msd.inputs(signal, 0, 8), (5, 1, 1))  # more than one block's
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(msd.network(inputs))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_float32_is_float32_on_a_gpu_too(
    msd: Musicnn, signal: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = Network.forward

    def spy(self: Network, *arguments: Any) -> torch.Tensor:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
        return forward(self, *arguments)

    monkeypatch.setattr(Network, "forward", spy)
    msd.network(msd.inputs(signal, 0, 1))
    assert seen == [(False, True)]


def test_inputs_do_not_depend_on_where_they_start(
    msd: Musicnn, signal: npt.NDArray[np.float32]
) -> None:
    whole = msd.inputs(signal, 0, 8)
    parts = [msd.inputs(signal, a, b) for a, b in [(0, 1), (1, 3), (3, 8)]]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_clock() -> None:
    timing = Musicnn(MusicnnConfig(hop=0.48), {}).timing
    assert timing.hop_s == pytest.approx(0.48)
    assert timing.window_s == pytest.approx(3.008)
    assert timing.first_center_s == pytest.approx(1.488)


def test_another_hop_gives_the_same_rows_elsewhere(
    msd: Musicnn, signal: npt.NDArray[np.float32]
) -> None:
    sparse = Musicnn(MusicnnConfig(hop=4 * 0.976), msd.weights)  # patches that do not touch
    np.testing.assert_allclose(sparse.extract(signal), msd.extract(signal)[::4], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(1, 1), (47615, 1), (47616, 1), (63231, 1), (63232, 2), (160000, 8), (465984, 27)],
)
def test_rows(samples: int, rows: int, msd: Musicnn) -> None:
    assert msd.frames(samples) == rows


@pytest.mark.parametrize("samples", [1, 100, 300, 16000, 47615])
def test_a_short_clip_is_followed_by_zeros(
    samples: int, msd: Musicnn, signal: npt.NDArray[np.float32]
) -> None:
    filled = np.zeros(48000, dtype=np.float32)
    filled[:samples] = signal[:samples]
    found = msd.extract(signal[:samples])
    assert found.shape == (1, 753)
    np.testing.assert_array_equal(found, msd.extract(filled))


def test_log_mel_by_hand(signal: npt.NDArray[np.float32]) -> None:
    frame = 37
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    samples = signal[256 * frame - 256 : 256 * frame + 256] * window
    angles = 2 * np.pi * np.outer(np.arange(257), np.arange(512)) / 512
    power = (np.cos(angles) @ samples) ** 2 + (np.sin(angles) @ samples) ** 2
    # Band 1 of Slaney's scale, whose first 15 mel are 66.7 Hz each: 96 bands up to 8 kHz.
    step = (15 + np.log(8.0) * 27 / np.log(6.4)) / 97 * 200 / 3
    hz = np.arange(257) * 31.25
    triangle = np.maximum(0, 1 - np.abs(hz - 2 * step) / step) / step
    found = log_mel(signal, frame, frame + 1)
    assert found.shape == (1, 96)
    # float16 has 11 bits: 2^-11 of the power, 2.2e-4 after log10.
    assert found[0, 1] == pytest.approx(np.log10(1e4 * (triangle @ power) + 1), abs=2.5e-4)


def test_log_mel_of_silence_and_of_far_too_loud_is_finite() -> None:
    assert not log_mel(np.zeros(1000, np.float32), 0, 4).any()
    assert np.isfinite(log_mel(np.full(1000, 1e4, np.float32), 0, 4)).all()


@settings(deadline=None, max_examples=50)
@given(
    hop=st.integers(1, 250),
    clips=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    silent=st.booleans(),
)
def test_joined_frames_hold_every_patch(hop: int, clips: list[int], silent: bool) -> None:
    rng = np.random.default_rng(0)
    patches = []
    for rows in clips:
        frames = rng.standard_normal((PATCH + hop * (rows - 1), 2)).astype(np.float32)
        patches += [frames[hop * i : hop * i + PATCH] * (not silent) for i in range(rows)]
    frames, starts = joined(np.stack(patches), hop)
    found = frames[starts[:, None] + np.arange(PATCH)]
    np.testing.assert_array_equal(found, patches)
    if not silent:  # each frame once
        assert len(frames) == sum(PATCH + min(hop, PATCH) * (rows - 1) for rows in clips)


def test_the_maximum_may_come_before_the_norm() -> None:
    torch.manual_seed(0)
    layer = PooledConvolution(7, 38, 5).eval()
    gains = torch.tensor([1.5, -0.5, 0.0, -2.0, 0.1])
    layer.norm.load_state_dict(
        {
            "weight": gains,
            "bias": torch.randn(5),
            "running_mean": torch.randn(5),
            "running_var": torch.rand(5),
        }
    )
    x = torch.randn(3, 1, 150, 96)
    with torch.inference_mode():
        found = layer(x)
        maps = F.relu(layer.conv(x))
        normed = torch.stack([layer.norm(band) for band in maps.unbind(3)], 3)
    # The same sums; only the splitting into parts may change their order.
    torch.testing.assert_close(found, normed.amax(3), rtol=0, atol=1e-5)


def test_from_tensorflow_fills_the_network_and_leaves_the_optimizer_out() -> None:
    kernels = [(length, bands, 1, n) for length, bands, n in (*TIMBRAL, *TEMPORAL)]
    kernels += [(7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]
    norms = [1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]
    rng = np.random.default_rng(0)
    variables: dict[str, Array] = {"beta1_power": np.zeros(()), "conv2d/kernel/Adam": np.zeros(3)}
    for i, shape in enumerate(kernels):
        scope = f"conv2d_{i}" if i else "conv2d"
        variables[f"{scope}/kernel"] = rng.standard_normal(shape)
        variables[f"{scope}/bias"] = rng.standard_normal(shape[-1])
    for i, size in enumerate(norms):
        scope = f"batch_normalization_{i}" if i else "batch_normalization"
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            variables[f"{scope}/{part}"] = rng.standard_normal(size)
    for scope, shape in (("dense", (1506, 200)), ("dense_1", (200, 50))):
        variables[f"{scope}/kernel"] = rng.standard_normal(shape)
        variables[f"{scope}/bias"] = rng.standard_normal(shape[-1])
    state = from_tensorflow(variables)
    expected = {
        key: tuple(values.shape)
        for key, values in Network().state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert {key: values.shape for key, values in state.items()} == expected
    assert len(CONVOLUTIONS) == len(kernels)
    assert (
        state["mid.layers.0.conv.weight"][5, 300, 2] == variables["conv2d_5/kernel"][2, 300, 0, 5]
    )


@pytest.mark.parametrize(
    ("hop", "nearest"),
    [(0.5, "0.496 or 0.512"), (0.01, "0.016"), (0.97601, "0.976 or 0.992")],
)
def test_a_hop_of_no_whole_number_of_frames_is_refused(hop: float, nearest: str) -> None:
    with pytest.raises(UsageError, match=rf"musicnn\.hop={hop}: .*; use {nearest}$"):
        MusicnnConfig(hop=hop)


@pytest.mark.parametrize("hop", [0.0, -0.976, float("nan"), float("inf")])
def test_an_impossible_hop_is_refused(hop: float) -> None:
    with pytest.raises(UsageError, match=r"multiple of 0\.016 s above 0"):
        MusicnnConfig(hop=hop)


def test_the_leak_is_named() -> None:
    assert Musicnn.trained_on(MusicnnConfig(model="MTT")) == "mtat"
    assert Musicnn.trained_on(MusicnnConfig(model="MSD")) is None
    assert Musicnn.weight_names(MusicnnConfig(model="MTT")) == ("musicnn-mtt",)
