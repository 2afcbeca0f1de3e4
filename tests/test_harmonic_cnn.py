"""The harmonic CNN against its published implementation, and every encoder's contract."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from featreg.datasets.base import UsageError
from featreg.train.config.presets import PRESETS
from featreg.train.models import harmonic_cnn, log_mel
from featreg.train.models.base import Encoder
from featreg.train.models.harmonic_cnn import HarmonicCNN, HarmonicSTFT
from featreg.train.models.plain import Plain
from featreg.train.models.registry import ENCODERS, build_encoder, default_width

TASKS: Mapping[str, tuple[tuple[int, int], int]] = {"mtat": ((3, 3), 50), "dcase": ((2, 2), 17)}


def published_name(name: str) -> str:
    """The reference's name of one of our modules."""
    name = re.sub(r"encoder\.blocks\.(\d)", lambda m: f"conv_2d.res{int(m[1]) + 1}", name)
    return name.replace("encoder.front.bn", "hstft_bn").replace("decoder", "conv_2d")


def published(seeded: ModuleType, task: str) -> Plain:
    """The whole network with the reference's parameters."""
    time_pools, classes = TASKS[task]
    model = Plain(HarmonicCNN(time_pools=time_pools, spacing="published"), classes)
    state = {"encoder.front.q": torch.tensor([1.3])}
    for ours, module in model.named_modules():
        theirs = f"hcnn/{published_name(ours)}"
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            values = seeded.batch_norm(theirs, module.num_features)
            state[f"{ours}.weight"] = torch.from_numpy(values["gamma"])
            state[f"{ours}.bias"] = torch.from_numpy(values["beta"])
            state[f"{ours}.running_mean"] = torch.from_numpy(values["mean"])
            state[f"{ours}.running_var"] = torch.from_numpy(values["variance"])
        elif isinstance(module, nn.Conv2d | nn.Linear):
            if isinstance(module, nn.Linear):
                theirs = theirs.replace("hcnn/", f"hcnn/{task}/")
            outputs, inputs, *size = module.weight.shape
            kernel = seeded.kernel(f"{theirs}/kernel", (*size, inputs, outputs))
            axes = (3, 2, 0, 1) if size else (1, 0)
            state[f"{ours}.weight"] = torch.from_numpy(kernel.transpose(axes))
            state[f"{ours}.bias"] = torch.from_numpy(
                seeded.array(f"{theirs}/bias", (outputs,), 0.1)
            )
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    return model.eval()


@pytest.mark.parametrize(
    ("task", "samples"), [("mtat", 80000), ("dcase", 80000), ("dcase", 160000)]
)
def test_equals_the_published_implementation(
    reference: Callable[[str], Mapping[str, Any]], seeded: ModuleType, task: str, samples: int
) -> None:
    expected = reference("harmonic_cnn")
    case = f"{task}{samples}"
    model = published(seeded, task)
    signals = [seeded.signal(samples / 16000, 16000, seed) for seed in (0, 1)]
    audio = torch.from_numpy(np.stack(signals))
    with torch.no_grad():
        decibels = model.encoder.front.decibels(audio[:1])[..., :40].numpy()
        output = model(audio)

    # 1e-4 of the power: where a triangle is a thousandth high, the published float32
    # slopes are rounded by that much.
    power_ratio = 10 ** ((decibels - expected[f"{case}/harmonic"]) / 10)
    assert np.abs(power_ratio - 1).max() < 1e-4
    # 1e-4 of the largest value: float32 sums of up to 2,304 products in 12 layers.
    embedding = expected[f"{case}/embedding"].transpose(0, 2, 1)
    assert np.abs(output.embedding.numpy() - embedding).max() < 1e-4 * embedding.max()
    probability = output.logits.sigmoid().numpy()
    np.testing.assert_allclose(probability, expected[f"{case}/probability"], atol=1e-4)


@pytest.mark.parametrize(("task", "parameters"), [("mtat", 3_631_551), ("dcase", 3_623_070)])
def test_published_number_of_parameters(task: str, parameters: int) -> None:
    time_pools, classes = TASKS[task]
    model = Plain(HarmonicCNN(time_pools=time_pools), classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in model.encoder.front.parameters()) == 13


def test_width_scales_every_block() -> None:
    encoder = HarmonicCNN(width=16)
    channels = [m.out_channels for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert channels == [16] * 7 + [32] * 5
    assert encoder(torch.zeros(1, 80000)).shape == (1, 2, encoder.dim) == (1, 2, 32)


def test_filters_equal_a_slow_loop() -> None:
    front = HarmonicSTFT()
    with torch.no_grad():
        front.q.fill_(1.7)
    filters = (1 - front.q * front.distance).relu().tolist()
    for harmonic in (1, 4, 6):
        for level in (0, 63, 127):
            f = harmonic * 440 * 2 ** ((24 + level / 2 - 69) / 12)  # MIDI note 24 is C1
            bandwidth = (0.1079 * f + 24.7) / 1.7
            row = filters[(harmonic - 1) * 128 + level]
            for k in range(257):
                rising = 1 + 2 * (k * 31.25 - f) / bandwidth
                falling = 1 - 2 * (k * 31.25 - f) / bandwidth
                # 1e-5: float32, distances of up to 600 half bandwidths
                assert row[k] == pytest.approx(max(0.0, min(rising, falling)), abs=1e-5)


def test_a_tone_lights_up_its_levels() -> None:
    front = HarmonicSTFT()
    level = 90
    hertz = harmonic_cnn.C1_HZ * 2 ** (level / 24)
    tone = torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000)
    decibels = front.decibels(tone[None])[0].mean(dim=-1)
    # The fundamental at its level, the octave below at harmonic 2. A level is 13 Hz
    # wide there, a bin 31 Hz: the peak may be one level off.
    assert abs(int(decibels[0].argmax()) - level) <= 1
    assert abs(int(decibels[1].argmax()) - (level - 24)) <= 1


def test_spacings_differ_by_where_the_bins_are() -> None:
    exact, published = HarmonicSTFT(), HarmonicSTFT("published")
    assert (exact.n_fft, published.n_fft) == (512, 513)
    assert exact.distance.equal(published.distance)


def test_silence_is_at_the_floor() -> None:
    decibels = HarmonicSTFT().decibels(torch.zeros(1, 4000))
    assert (decibels == -100).all()


def test_only_q_and_the_normalization_learn_and_q_has_the_right_gradient(
    seeded: ModuleType,
) -> None:
    front = HarmonicSTFT().double()
    assert {name for name, _ in front.named_parameters()} == {"q", "bn.weight", "bn.bias"}
    audio = torch.from_numpy(seeded.signal(0.1, 16000)).double()[None]
    front.decibels(audio).sum().backward()
    assert front.q.grad is not None

    with torch.no_grad():
        step = 1e-6
        front.q += step
        above = front.decibels(audio).sum()
        front.q -= 2 * step
        below = front.decibels(audio).sum()
    # 1e-5: error of the central difference in float64; no triangle has a corner in between
    slope = float(above - below) / (2 * step)
    assert float(front.q.grad) == pytest.approx(slope, rel=1e-5)


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(request.param, width=8, samples=48000)


def test_encoder_keeps_its_contract(encoder: Encoder) -> None:
    audio = 0.1 * torch.randn(2, encoder.samples)
    embedding = encoder(audio)
    assert encoder.sample_rate == 16000
    assert embedding.shape == (2, encoder.frames, encoder.dim)
    assert embedding.isfinite().all()
    longer = encoder(0.1 * torch.randn(2, 2 * encoder.samples))
    assert longer.shape[1] >= 2 * encoder.frames - 1  # the last frame may reach beyond the end

    embedding.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_encoder_treats_clips_independently_at_inference(encoder: Encoder) -> None:
    audio = 0.1 * torch.randn(3, encoder.samples)
    encoder.eval()
    # 1e-5: sums in another order
    torch.testing.assert_close(encoder(audio)[1:2], encoder(audio[1:2]), atol=1e-5, rtol=1e-5)


def test_encoder_is_finite_on_silence(encoder: Encoder) -> None:
    encoder(torch.zeros(2, encoder.samples)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_encoder_under_autocast_is_near_float32(encoder: Encoder) -> None:
    audio = 0.1 * torch.randn(2, encoder.samples)
    precise = encoder.eval()(audio)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(audio).float()
    # bfloat16 has 8 bits: 0.4 % a rounding, a few of them on the way
    assert (rough - precise).norm() < 0.05 * precise.norm()


def test_front_end_stays_float32_under_autocast() -> None:
    audio = 0.1 * torch.randn(1, 4000)
    front = HarmonicSTFT()
    with torch.autocast("cpu", torch.bfloat16):
        rough = front.train(False)(audio)
    assert rough.dtype == torch.float32
    assert rough.equal(front(audio))


@pytest.mark.parametrize(
    ("name", "options", "shortest"),
    [
        ("harmonic_cnn", {}, 127 * 256),
        ("harmonic_cnn", {"time_pools": (3, 3)}, 287 * 256),
        ("harmonic_cnn", {"time_pools": (2, 1)}, 63 * 256),
        ("mel_cnn", {}, 31 * 256),
        ("mobile_cnn", {}, 257),
    ],
)
def test_shortest_input_is_named(name: str, options: dict[str, Any], shortest: int) -> None:
    encoder = build_encoder(name, width=2, samples=shortest, **options)
    assert encoder(torch.zeros(2, shortest)).shape[1] == encoder.frames == 1
    with pytest.raises(UsageError, match=f"at least {shortest} samples, got {shortest - 1}"):
        build_encoder(name, samples=shortest - 1, **options)


def test_a_second_of_speech_is_padded_as_published() -> None:
    """Six poolings by 2 need 64 frames, a second has 63: zeros make up for the last."""
    recipe = PRESETS["speech_commands"]
    encoder = build_encoder("harmonic_cnn", width=2, samples=16000, **recipe.encoder_options).eval()
    audio = 0.1 * torch.randn(2, 16000)
    assert encoder(audio).shape == (2, encoder.frames, encoder.dim) == (2, 1, 4)
    padded = torch.cat([audio, torch.zeros(2, 128)], dim=1)
    assert encoder(audio).equal(encoder(padded))


def test_unknown_encoder_is_named() -> None:
    with pytest.raises(UsageError, match=r"'cnn' .*harmonic_cnn, mel_cnn, mobile_cnn"):
        build_encoder("cnn")


def test_mel_filters_equal_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=16000, n_fft=512, n_mels=64, htk=True, norm=None)
    # both are float64 rounded to float32
    np.testing.assert_allclose(log_mel.mel_filters().numpy(), expected, atol=1e-7)


def test_the_mobile_encoder_has_a_million_parameters_and_its_own_default_width() -> None:
    encoder = build_encoder("mobile_cnn", width=default_width("mobile_cnn"))
    assert 0.7e6 < sum(p.numel() for p in encoder.parameters()) < 1.1e6
    assert encoder.dim == 480
    # one embedding frame per 32 spectrogram frames of 10 ms
    assert encoder.frames == math.ceil((80000 // 160 + 1) / 32)
