"""Models of transformers: frames equal to those of transformers called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

transformers = pytest.importorskip("transformers")

import torch  # noqa: E402
from huggingface_models import RATES, save  # noqa: E402

import featreg  # noqa: E402

Floats = npt.NDArray[np.float32]
SPEECH = ("wav2vec2", "hubert", "wavlm")
# float32 rounds differently in batches and windows of another size.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: save(kind, folder / kind) for kind in RATES}


def noise(seconds: float, rate: int, seed: int = 0) -> Floats:
    """Noise whose loudness changes, in [-1, 1]."""
    n = round(seconds * rate)
    loudness = 0.02 + 0.2 * np.linspace(0, 1, n) ** 2
    return (np.random.default_rng(seed).uniform(-1, 1, n) * loudness).astype(np.float32)


def ours(folder: Path, signal: Floats, rate: int, **settings: Any) -> Floats:
    frames, times = featreg.load_extractor(f"x=hf:{folder}", **settings)(signal, rate)
    assert len(frames) == len(times)
    return frames


def direct(folder: Path, signal: Floats, loader: str = "AutoModel") -> Any:
    """All outputs of the model, called as its documentation shows."""
    front_end = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = getattr(transformers, loader).from_pretrained(folder).eval()
    if loader == "WhisperModel":
        model = model.get_encoder()
    given = front_end(signal, sampling_rate=front_end.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        return model(**given, output_hidden_states=True)


@pytest.mark.parametrize("kind", SPEECH)
def test_a_short_clip_equals_transformers(models: dict[str, Path], kind: str) -> None:
    signal = noise(3.3, 16000)
    found = direct(models[kind], signal)
    frames = ours(models[kind], signal, 16000)
    assert frames.shape == (1 + (len(signal) - 400) // 320, 32)
    np.testing.assert_allclose(frames, found.last_hidden_state[0], **CLOSE)
    for text, indices in (("0", [0]), ("2", [2]), ("-1", [3]), ("-4", [0]), ("1-3", [1, 2, 3])):
        mean = torch.stack([found.hidden_states[i][0] for i in indices]).mean(dim=0)
        np.testing.assert_allclose(
            ours(models[kind], signal, 16000, layer=text), mean, err_msg=text, **CLOSE
        )


@pytest.mark.parametrize("kind", SPEECH)
def test_windows_of_a_long_clip_contribute_their_middle(models: dict[str, Path], kind: str) -> None:
    signal = noise(45, 16000)
    frames = ours(models[kind], signal, 16000)
    assert len(frames) == 1 + (len(signal) - 400) // 320
    # Windows start at 0, 16 and 32 s, 800 frames apart; each has 999 frames of 20 s.
    for start, first, last in ((0, 0, 899), (16, 899, 1699), (32, 1699, len(frames))):
        window = signal[start * 16000 : (start + 20) * 16000]
        expected = direct(models[kind], window).last_hidden_state[0]
        offset = start * 50
        np.testing.assert_allclose(
            frames[first:last], expected[first - offset : last - offset], **CLOSE
        )
    cut = ours(models[kind], signal[: 38 * 16000], 16000)
    np.testing.assert_allclose(cut[: 18 * 50], frames[: 18 * 50], **CLOSE)


def test_the_time_of_a_frame_is_the_center_of_its_samples(models: dict[str, Path]) -> None:
    extractor = featreg.load_extractor(f"x=hf:{models['hubert']}")
    _, times = extractor(noise(1, 16000), 16000)
    np.testing.assert_allclose(times, 0.0125 + 0.02 * np.arange(49))
    assert (extractor.sample_rate, extractor.hop_s, extractor.dim) == (16000, 0.02, 32)


@pytest.mark.parametrize("kind", RATES)
def test_clips_in_one_batch_do_not_affect_each_other(models: dict[str, Path], kind: str) -> None:
    extractor = featreg.load_extractor(f"x=hf:{models[kind]}")
    extractor._extractor.batch_windows = 3
    clips = [noise(s, RATES[kind], seed) for seed, s in enumerate((1, 2.5, 1, 1, 21, 1, 1))]
    together = extractor(clips, RATES[kind])
    for clip, (frames, _) in zip(clips, together, strict=True):
        np.testing.assert_allclose(frames, extractor(clip, RATES[kind])[0], **CLOSE)


def test_frames_of_ast_are_means_over_frequency(models: dict[str, Path]) -> None:
    signal = noise(10.24, 16000)
    found = direct(models["ast"], signal)
    tokens = found.last_hidden_state[0, 2:].reshape(12, 101, 32)
    frames = ours(models["ast"], signal, 16000)
    assert len(frames) == 101
    for i in range(101):
        np.testing.assert_allclose(frames[i], sum(tokens[:, i]) / 12, **CLOSE)
    np.testing.assert_allclose(
        ours(models["ast"], signal, 16000, layer="1"),
        found.hidden_states[1][0, 2:].reshape(12, 101, 32).mean(dim=0),
        **CLOSE,
    )
    pooled = ours(models["ast"], signal, 16000, pooled=True)
    np.testing.assert_allclose(pooled, found.pooler_output, **CLOSE)


def test_ast_windows_start_every_81_columns(models: dict[str, Path]) -> None:
    signal = noise(25, 16000)
    frames = ours(models["ast"], signal, 16000)
    assert len(frames) == 1 + (len(signal) - 2800) // 1600
    second = direct(models["ast"], signal[81 * 1600 :][: 1024 * 160]).last_hidden_state
    tokens = second[0, 2:].reshape(12, 101, 32).mean(dim=0)
    np.testing.assert_allclose(frames[91:172], tokens[10:91], **CLOSE)
    assert len(ours(models["ast"], signal, 16000, pooled=True)) == 3


@pytest.mark.parametrize("fusion", [False, True])
def test_clap_gives_one_vector_per_window(tmp_path: Path, fusion: bool) -> None:
    folder = save("clap-fusion" if fusion else "clap", tmp_path)
    signal = noise(17, 48000)
    frames, times = featreg.load_extractor(f"x=hf:{folder}")(signal, 48000)
    np.testing.assert_allclose(times, [5, 10, 15])
    front_end = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.ClapModel.from_pretrained(folder).eval()
    for frame, start in zip(frames, (0, 5, 10), strict=True):
        window = signal[start * 48000 : (start + 10) * 48000]
        given = front_end(window, sampling_rate=48000, return_tensors="pt")
        given["is_longer"] = torch.tensor([[False]])
        with torch.inference_mode():
            audio = model.audio_model(**given).pooler_output
            expected = model.audio_projection(audio)[0]
        np.testing.assert_allclose(frame, expected, **CLOSE)


def test_the_encoder_of_whisper(models: dict[str, Path]) -> None:
    signal = noise(40, 16000)
    frames = ours(models["whisper"], signal, 16000)
    assert len(frames) == 2000
    first = direct(models["whisper"], signal[: 30 * 16000], "WhisperModel").last_hidden_state[0]
    second = direct(models["whisper"], signal[24 * 16000 :], "WhisperModel").last_hidden_state[0]
    np.testing.assert_allclose(frames[:1350], first[:1350], **CLOSE)
    np.testing.assert_allclose(frames[1350:], second[150:800], **CLOSE)


def test_nothing_is_printed(models: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    ours(models["clap"], noise(1, 48000), 48000)  # without the text model, which is not used
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", RATES)
def test_a_very_short_clip_is_padded(models: dict[str, Path], kind: str) -> None:
    extractor = featreg.load_extractor(f"x=hf:{models[kind]}")._extractor
    for samples in (1, 399, 401, 2799):
        frames = extractor.extract(noise(samples / RATES[kind], RATES[kind]))
        speech = 1 + max(0, samples - 400) // 320
        expected = speech if kind in SPEECH else -(-samples // 320) if kind == "whisper" else 1
        assert frames.shape == (expected, extractor.dim)
        assert np.isfinite(frames).all()


def test_a_model_whose_front_end_does_not_normalize(tmp_path: Path) -> None:
    folder = save("wav2vec2", tmp_path, normalize=False)
    signal = noise(1, 16000)
    expected = direct(folder, signal).last_hidden_state[0]
    np.testing.assert_allclose(ours(folder, signal, 16000), expected, **CLOSE)


def test_half_precision_is_close(models: dict[str, Path]) -> None:
    signal = noise(3, 16000)
    full = ours(models["wavlm"], signal, 16000)
    half = ours(models["wavlm"], signal, 16000, precision="bfloat16")
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    assert cosine.min() > 0.99
