"""A trained model as a Python object, and the file that holds it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from kit import write
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import RATE, header
from toy_runs import CLASSES, call, noise

from featreg.datasets.audio.decode import Resampler, resample
from featreg.datasets.base import ClipError, FeatregError, UsageError
from featreg.train.deploy.classifier import Classifier, load_model
from featreg.train.deploy.fuse_batch_norm import fuse_batch_norm
from featreg.train.deploy.model_file import Card, read_model, write_model
from featreg.train.models.base import Output, Tagger
from featreg.train.models.registry import build_encoder, build_tagger
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_clip_of_the_test_split_is_predicted_as_in_the_run(
    work: Path, trained: RunDir, model: Classifier
) -> None:
    expected = pd.read_csv(trained.path / "predictions.csv", index_col="clip_id")
    with h5py.File(work / "toy/aligned/tones+noise-0.1s/test-00000.h5") as shard:
        first, last = shard["audio_offset"][4:6]
        audio = shard["audio"][first:last] / 32767
    # six decimals in the file, and other clips in the batch
    np.testing.assert_allclose(
        model.probabilities(audio, RATE), expected.loc["test-00000-4"].to_numpy()[:3], atol=2e-6
    )


def test_a_model_says_what_it_is(model: Classifier) -> None:
    assert model.classes == CLASSES
    assert model.sample_rate == RATE
    assert model.task == "multi-label"
    assert model.chunk_s == 1.0


def test_a_file_and_its_array_give_the_same(model: Classifier, tmp_path: Path) -> None:
    audio = np.stack([noise(1.7, 44100), noise(1.7, 44100, seed=1)], axis=1)
    path = write(tmp_path / "stereo.wav", audio, 44100, subtype="FLOAT")
    expected = model.probabilities(path)
    assert expected.shape == (3,)
    assert expected.dtype == np.float32
    assert ((expected > 0) & (expected < 1)).all()
    np.testing.assert_array_equal(model.probabilities(audio, 44100), expected)
    np.testing.assert_array_equal(model.probabilities(str(path)), expected)


def test_audio_is_heard_by_the_resampler_of_the_shards(
    trained: RunDir, model: Classifier, tmp_path: Path
) -> None:
    method: Resampler = "kaiser_best"
    tagger, _ = read_model(trained.path / "model.safetensors")
    about = header(audio_settings={"resampler": method})
    write_model(path := tmp_path / "m.safetensors", tagger, Card.of("m", trained.config(), about))
    audio = noise(1.7, 44100)
    stored = np.rint(resample(audio, 44100, RATE, method).clip(-1, 1) * 32767) / 32767
    expected = model.probabilities(stored.astype(np.float32), RATE)
    np.testing.assert_array_equal(load_model(path).probabilities(audio, 44100), expected)
    assert not np.array_equal(model.probabilities(audio, 44100), expected)


def test_a_lone_safetensors_file_is_enough(
    trained: RunDir, model: Classifier, tmp_path: Path
) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((trained.path / "model.safetensors").read_bytes())
    np.testing.assert_array_equal(
        load_model(copy).probabilities(noise(3), RATE), model.probabilities(noise(3), RATE)
    )


def test_all_of_a_long_file_is_heard(model: Classifier) -> None:
    audio = np.zeros(10 * RATE, np.float32)
    silent = model.probabilities(audio, RATE)
    for second in range(10):  # three pieces of a second would miss most of these
        loud = audio.copy()
        loud[second * RATE : (second + 1) * RATE] = noise(1)
        assert not np.array_equal(model.probabilities(loud, RATE), silent), second


def test_a_prediction_is_the_mean_over_chunks(model: Classifier) -> None:
    audio = noise(2.0)
    pieces = [model.probabilities(audio[start : start + RATE], RATE) for start in (0, 8000, 16000)]
    # float32 means in another order
    np.testing.assert_allclose(model.probabilities(audio, RATE), np.mean(pieces, axis=0), atol=1e-6)


def test_a_short_clip_is_heard_as_in_training(model: Classifier) -> None:
    audio = noise(0.25)  # 2.5 rows: zeros up to 3, and again from its start
    period = np.pad(audio, (0, 800))
    repeated = np.resize(period, RATE)
    np.testing.assert_array_equal(
        model.probabilities(audio, RATE), model.probabilities(repeated, RATE)
    )


def test_predictions_over_time_tile_the_clip(model: Classifier) -> None:
    audio = noise(2.3)
    timeline = model.predict_over_time(audio, RATE, hop_s=0.5)
    np.testing.assert_allclose(timeline.start_s, [0, 0.5, 1.0, 1.3])
    np.testing.assert_allclose(timeline.end_s, [1, 1.5, 2.0, 2.3])
    assert timeline.probability.shape == (4, 3)
    for start, probability in zip(timeline.start_s, timeline.probability, strict=True):
        piece = audio[round(start * RATE) :][:RATE]
        np.testing.assert_allclose(probability, model.probabilities(piece, RATE), atol=1e-6)
    short = model.predict_over_time(noise(0.3), RATE, hop_s=0.5)
    assert (short.start_s.tolist(), short.end_s.tolist()) == ([0.0], [0.3])


def test_predictions_are_named_by_class(model: Classifier, tmp_path: Path) -> None:
    path = write(tmp_path / "noise.wav", noise(2.3), RATE, subtype="FLOAT")
    found = model.predict(path)
    assert found == dict(zip(CLASSES, model.probabilities(path).tolist(), strict=True))
    assert model.predict([path, noise(1.0)], RATE) == [found, model.predict(noise(1.0), RATE)]


def with_chunks_of(seconds: float, model: Classifier) -> Classifier:
    """An untrained classifier whose pieces, and with them its embedding, are longer."""
    options = {**model.card.encoder_options, "samples": round(seconds * RATE)}
    card = dataclasses.replace(model.card, encoder_options=options, samples=options["samples"])
    torch.manual_seed(0)
    return Classifier(card.build().eval(), card, "cpu")


def test_embeddings_of_a_long_clip_are_those_of_its_chunks(model: Classifier) -> None:
    model = with_chunks_of(4.0, model)
    torch.manual_seed(0)
    tagger = model.card.build().eval()
    audio = np.rint(noise(9.0) * 32767).astype(np.float32) / 32767  # as a shard stores it
    pieces = np.stack([audio[first * RATE : (first + 4) * RATE] for first in (0, 4, 5)])
    with torch.no_grad():
        expected = tagger(torch.from_numpy(pieces)).embedding.numpy()
    hop = 4 / 7
    assert expected.shape[1] == 7
    embeddings, times = model.embed(audio, RATE)
    assert (embeddings.dtype, times.dtype) == (np.float32, np.float64)
    # The second piece ends in a frame at 7.71 s; of the third those at 8.14 and 8.71 s follow.
    np.testing.assert_allclose(times, [*(np.arange(14) + 0.5) * hop, 5 + 5.5 * hop, 5 + 6.5 * hop])
    # 1e-5: float32 sums of other batches
    frames = [*expected[0], *expected[1], *expected[2, 5:]]
    np.testing.assert_allclose(embeddings, frames, atol=1e-5)
    (again, _), (_, short) = model.embed([audio, noise(1.7)], RATE)
    np.testing.assert_array_equal(again, embeddings)
    np.testing.assert_allclose(short, [0.5 * hop, 1.5 * hop, 2.5 * hop])


@pytest.mark.parametrize("chunk_s", [1.0, 4.0])
@pytest.mark.parametrize("seconds", [0.03, 0.3, 1.0, 1.01, 2.0, 7.77])
def test_frames_of_an_embedding_lie_inside_the_clip_in_order(
    model: Classifier, seconds: float, chunk_s: float
) -> None:
    model = with_chunks_of(chunk_s, model)
    embeddings, times = model.embed(noise(seconds), RATE)
    assert embeddings.shape == (len(times), embeddings.shape[1])
    assert len(times) >= 1
    assert 0 < times[0] <= times[-1] < seconds
    assert (np.diff(times) > 0).all()


def test_what_is_no_audio_is_refused(model: Classifier) -> None:
    with pytest.raises(ClipError, match=r"nowhere\.wav"):
        model.predict(Path("nowhere.wav"))
    with pytest.raises(UsageError, match="sample_rate"):
        model.embed(noise(1.0))
    with pytest.raises(UsageError, match="its values reach 30000"):
        model.predict(np.full(16000, 3e4), RATE)
    with pytest.raises(UsageError, match="its channels cancel"):
        model.predict(np.stack([noise(1), -noise(1)], 1), RATE)


def test_a_hop_of_nothing_is_refused(model: Classifier) -> None:
    with pytest.raises(UsageError, match=r"--hop 0: .*at least one sample, 6\.25e-05 s"):
        model.predict_over_time(noise(1), RATE, hop_s=0)


def test_the_model_of_a_regularized_run_knows_nothing_of_features(trained: RunDir) -> None:
    with safe_open(trained.path / "model.safetensors", "pt") as file:
        text = json.dumps(file.metadata())
        names = set(file.keys())
    for word in ("tones", "noise", "features", "conreg", "regularizer"):
        assert word not in text
    plain = build_tagger("none", build_encoder("mel_cnn", width=2, samples=RATE), 0, 3)
    assert names == plain.state_dict().keys()


def test_a_file_of_another_version_names_both(trained: RunDir, tmp_path: Path) -> None:
    weights = load_file(trained.path / "model.safetensors")
    save_file(weights, path := tmp_path / "m.safetensors")
    with pytest.raises(FeatregError, match="expected featreg-model version 2, found no format"):
        load_model(path)
    save_file(weights, path, {"format": "featreg-model", "version": "7"})
    with pytest.raises(FeatregError, match="version 2, found featreg-model version 7"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08" + bytes(7) + b"{}      "])
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(FeatregError, match=r"broken\.safetensors"):
        load_model(path)


def test_weights_of_another_model_are_named(trained: RunDir, tmp_path: Path) -> None:
    tagger, card = read_model(trained.path / "model.safetensors")
    write_model(
        path := tmp_path / "m.safetensors", tagger, dataclasses.replace(card, classes=("a",))
    )
    with pytest.raises(FeatregError, match=r"m\.safetensors: its weights do not fit.*fc_2"):
        load_model(path)


def test_an_extractor_that_is_not_here_is_named(work: Path, concat: RunDir) -> None:
    message = "concat: --fusion concat needs the feature tones"
    with pytest.raises(FeatregError, match=message):
        load_model(concat.path)
    result = call(work, "predict", "x.wav", "--run", "concat")
    assert result.exit_code == 1
    assert message in result.output
    assert "--weights tones=FILE" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("encoder", ["mel_cnn", "harmonic_cnn", "mobile_cnn"])
def test_fused_normalizations_give_the_same_outputs(encoder: str) -> None:
    torch.manual_seed(0)
    tagger = build_tagger("none", build_encoder(encoder, width=4, samples=48000), 0, 3)
    audio = torch.randn(4, 48000)
    with torch.no_grad():
        tagger(audio)  # statistics that are not 0 and 1
        tagger.eval()
        expected = tagger(audio)
        fused = fuse_batch_norm(tagger, (audio[:1], None))
        found = fused(audio)
    assert len(fused.state_dict()) < len(tagger.state_dict())
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_normalization_before_its_neighbour_is_kept() -> None:
    class Odd(Tagger):
        needs_features = False

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)
            self.bn.running_mean.fill_(3)  # type: ignore[union-attr]

        def forward(self, audio: Any, features: Any = None, labelled: Any = None) -> Output:
            x = self.conv(self.bn(audio[:, None, None]).relu()).flatten(1)
            return Output(x, x[:, None])

    odd = Odd().eval()
    assert fuse_batch_norm(odd, (torch.randn(1, 50), None)) is odd
