"""EfficientAT against the published implementation's numbers, and its windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from featreg.extract.extractors.batching import Batcher
from featreg.extract.extractors.efficientat import (
    COLUMN,
    RECEPTIVE_FIELD,
    WINDOW,
    WINDOW_HOP,
    EfficientAT,
    EfficientATConfig,
)
from featreg.extract.extractors.efficientat_frontend import log_mel, spectrogram_frames
from featreg.extract.extractors.efficientat_inference import Inference
from featreg.extract.extractors.efficientat_network import Network
from featreg.extract.weights.convert import convert

Floats = npt.NDArray[np.float32]
RATE = 32000
SIGNALS = ("signal10", "signal1", "noise03")
CLIPS = ("file/102305-6-0-0.wav", "file/102857-5-0-15.wav")


@pytest.fixture(scope="module")
def trained(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published weights of mn04."""
    target = tmp_path_factory.mktemp("weights") / "mn04.safetensors"
    convert("efficientat-mn04", shared / "weights/mn04_as_mAP_432.pt", target)
    return target


@pytest.fixture(scope="module")
def published(shared: Path) -> Mapping[str, Floats]:
    with np.load(shared / "reference/efficientat_reference.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def network() -> Network:
    """mn04 with weights drawn at random, the statistics of its batch norms among them."""
    torch.manual_seed(0)
    network = Network(0.4).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]
            for values in (layer.bias, layer.running_mean):
                torch.nn.init.normal_(values, 0.0, 0.2)  # type: ignore[arg-type]
    return network


@pytest.fixture(scope="module")
def drawn(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("drawn") / "mn04.safetensors"
    save_file(network.state_dict(), target)
    return target


def build(weights: Path, precision: Any = "float32", **choices: Any) -> EfficientAT:
    config = EfficientATConfig(model="mn04", **choices)
    return EfficientAT(config, {"efficientat-mn04": weights}, precision=precision)


def noise(samples: int, seed: int = 0) -> Floats:
    values = np.random.default_rng(seed).standard_normal(samples) * 0.1
    return values.astype(np.float32)


def columns(network: Network, signal: Floats, start: int = 0, stop: int | None = None) -> Floats:
    """Means over frequency of the published layers' last map, by a plain call."""
    mel = log_mel(signal, start, stop or spectrogram_frames(len(signal)))
    with torch.inference_mode():
        maps = network.features(torch.from_numpy(mel)[None, None])
    return np.asarray(maps[0].mean(1).T)


@pytest.mark.parametrize("name", SIGNALS + CLIPS)
def test_the_published_numbers(name: str, trained: Path, published: Mapping[str, Floats]) -> None:
    signal = published[f"{name}/samples"]
    mel = log_mel(signal, 0, spectrogram_frames(len(signal)))
    np.testing.assert_allclose(mel, published[f"{name}/melspec"], rtol=0, atol=1e-4)
    maps = build(trained)._inference.maps([mel])[0].numpy()
    expected = published[f"{name}/maps"]
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    frames = build(trained).extract(signal)
    expected = expected.mean(1).T
    np.testing.assert_allclose(frames, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    (pooled,) = build(trained, output="pooled").extract(signal)
    expected = published[f"{name}/pooled"]
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    (scores,) = build(trained, output="scores").extract(signal)
    expected = 1 / (1 + np.exp(-published[f"{name}/logits"]))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_bfloat16_keeps_the_direction(trained: Path, published: Mapping[str, Floats]) -> None:
    for name in SIGNALS + CLIPS:
        signal = published[f"{name}/samples"]
        exact = build(trained).extract(signal)
        reduced = build(trained, precision="bfloat16").extract(signal)
        assert reduced.dtype == np.float32
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(reduced, axis=1)
        assert (np.sum(exact * reduced, axis=1) / norms).min() >= 0.999, name


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("lengths", [(1000, 1000), (37,), (1,)])
def test_folded_layers_equal_the_published_ones(
    packed: bool, lengths: tuple[int, ...], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packed:  # as on a processor without oneDNN
        monkeypatch.setattr(
            "featreg.extract.extractors.efficientat_inference.FoldedConvolution._pack",
            lambda *_: None,
        )
    rng = np.random.default_rng(1)
    spectra = [rng.standard_normal((128, length)).astype(np.float32) for length in lengths]
    inference = Inference(network, "cpu", "float32")
    images = torch.from_numpy(np.stack(spectra))[:, None]
    with torch.inference_mode():
        expected = network.features(images)
        scores = network(images).sigmoid()
    # Folding and another order of sums; 1e-4 is what the published numbers are held to.
    scale = float(expected.abs().max())
    torch.testing.assert_close(inference.maps(spectra), expected, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(inference(spectra, "scores")[:, 0], scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 513, 514, 9600, 10240, 10241, 10242, 99999, 320000, 320002])
def test_frames_of_one_window_follow_the_formula(
    samples: int, network: Network, drawn: Path
) -> None:
    signal = noise(samples)
    expected = columns(network, signal)
    extractor = build(drawn, window="clip")
    assert extractor.frames(samples) == len(expected)
    found = extractor.extract(signal)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seconds", [10.01, 10.1, 15.12, 15.2, 23.7])
def test_frames_come_from_the_middle_of_windows(
    seconds: float, network: Network, drawn: Path
) -> None:
    signal = noise(round(seconds * RATE))
    spectrogram = spectrogram_frames(len(signal))
    # Slowly: window by window until one reaches the end, later windows taking over from
    # their ninth column on.
    expected = np.zeros((-(-spectrogram // COLUMN), 384), np.float32)
    pooled = []
    start = 0
    while True:
        own = columns(network, signal, start, min(start + WINDOW, spectrogram))
        first = start // COLUMN + (8 if start else 0)
        expected[first : start // COLUMN + len(own)] = own[8 if start else 0 :]
        pooled.append(own.mean(0))
        if start + WINDOW >= spectrogram:
            break
        start += WINDOW_HOP
    scale = np.abs(expected).max()
    np.testing.assert_allclose(build(drawn).extract(signal), expected, rtol=0, atol=1e-5 * scale)
    found = build(drawn, output="pooled").extract(signal)
    np.testing.assert_allclose(found, np.stack(pooled), rtol=0, atol=1e-5 * scale)


def test_a_frame_does_not_depend_on_the_length_of_the_file(drawn: Path) -> None:
    signal = noise(40 * RATE)
    extractor = build(drawn)
    whole = extractor.extract(signal)
    scale = np.abs(whole).max()
    begun = extractor.extract(signal[: 30 * RATE])
    until = round(20 / 0.32)  # more than 10 s before the end
    np.testing.assert_allclose(begun[:until], whole[:until], rtol=0, atol=1e-5 * scale)
    late = extractor.extract(signal[163840:])  # one window's hop later
    since = round(10.24 / 0.32)
    np.testing.assert_allclose(late[since:], whole[since + 16 :], rtol=0, atol=1e-5 * scale)


def test_time_grid(network: Network) -> None:
    timing = build(Path()).timing
    assert timing.hop_s == pytest.approx(0.32)
    assert timing.first_center_s == 0.0
    # The convolutions see 595 spectrogram frames of 25 ms, 10 ms apart, around frame 32 i:
    # of the loss of one column, the gradient is zero elsewhere. Means over the window are
    # taken out of it.
    assert timing.window_s == pytest.approx(594 * 0.01 + 0.025)
    mel = torch.randn(1, 1, 128, WINDOW, requires_grad=True)
    gains = [each for each in network.modules() if type(each).__name__ == "Excitation"]
    hooks = [each.register_forward_hook(lambda _, given, found: given[0]) for each in gains]
    network.features(mel)[0, :, :, 15].sum().backward()
    for hook in hooks:
        hook.remove()
    assert mel.grad is not None
    seen = np.flatnonzero(np.asarray(mel.grad[0, 0].abs().sum(0)))
    assert seen[0] == 15 * COLUMN - RECEPTIVE_FIELD // 2
    assert seen[-1] == 15 * COLUMN + RECEPTIVE_FIELD // 2
    pooled = build(Path(), output="pooled").timing
    assert (pooled.hop_s, pooled.window_s, pooled.first_center_s) == (5.12, 10.0, 5.0)


@pytest.mark.parametrize("batch", [1, 7, 32, 1000])
@pytest.mark.parametrize("output", ["frames", "pooled"])
def test_batch_mates_change_nothing(output: str, batch: int, drawn: Path) -> None:
    extractor = build(drawn, output=output)
    signals = {str(n): noise(round(n * RATE), seed) for seed, n in enumerate((4, 0.3, 16.5, 4, 1))}
    alone = {name: extractor.extract(signal) for name, signal in signals.items()}
    extractor.batch_frames = batch
    found: dict[str, Any] = {}
    batcher = Batcher(extractor, found.__setitem__)
    for name, signal in signals.items():
        batcher.push(name, signal)
    batcher.flush()
    for name, values in alone.items():
        assert values.shape == (extractor.frames(len(signals[name])), 384)
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * scale)


def test_each_window_is_computed_once(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, seen = build(drawn), 0
    compute: Callable[..., None] = extractor._compute

    def count(inference: Inference, windows: Any) -> None:
        nonlocal seen
        seen += len(windows)
        compute(inference, windows)

    monkeypatch.setattr(extractor, "_compute", count)
    extractor.batch_frames = 5
    extractor.extract(noise(26 * RATE))
    assert seen == 5  # at 0, 5.12, 10.24, 15.36 and 20.48 s


def test_an_array_may_be_used_again(drawn: Path) -> None:
    extractor = build(drawn)
    signal = noise(2 * RATE)
    first = extractor.extract(signal)
    signal *= 0.1
    assert not np.array_equal(extractor.extract(signal), first)


def test_the_number_of_threads_changes_no_bit(drawn: Path) -> None:
    extractor = build(drawn)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        fresh = [extractor.inputs(noise(4 * RATE, seed), 0, 13) for seed in range(9)]
        found.append(extractor.network(np.concatenate(fresh)))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_seeded_signals_are_those_of_the_reference(
    seeded: ModuleType, published: Mapping[str, Floats]
) -> None:
    np.testing.assert_array_equal(
        seeded.signal(10, RATE, 0).astype(np.float32), published["signal10/samples"]
    )
