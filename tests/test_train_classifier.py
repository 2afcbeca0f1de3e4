"""A trained model as a Python object, and the file that holds it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from kit import write
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import RATE, header
from toy_runs import CLASSES, call, noise

from featreg.datasets.audio.decode import Resampler, resample
from featreg.datasets.base import FeatregError, UsageError
from featreg.train import load
from featreg.train.deploy.classifier import Classifier
from featreg.train.deploy.model_file import Card, read_model, write_model
from featreg.train.models.registry import build_encoder, build_tagger
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")


def test_importing_the_package_imports_no_torch() -> None:
    program = (
        "import sys, featreg.train\n"
        "assert 'torch' not in sys.modules\n"
        "from featreg.train import load\n"
        "assert callable(load) and 'torch' in sys.modules\n"
        "try: featreg.train.nonsense\n"
        "except AttributeError as error: assert 'nonsense' in str(error)\n"
        "else: raise SystemExit(1)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_clip_of_the_test_split_is_predicted_as_in_the_run(
    work: Path, trained: RunDir, model: Classifier
) -> None:
    expected = pd.read_csv(trained.path / "predictions.csv", index_col="clip_id")
    with h5py.File(work / "toy/aligned/tones+noise-0.1s/test-00000.h5") as shard:
        first, last = shard["audio_offset"][4:6]
        audio = shard["audio"][first:last] / 32767
    # six decimals in the file, and other clips in the batch
    np.testing.assert_allclose(
        model.predict(audio, RATE), expected.loc["test-00000-4"].to_numpy(), atol=2e-6
    )


def test_a_model_says_what_it_is(model: Classifier) -> None:
    assert model.classes == CLASSES
    assert model.sample_rate == RATE
    assert model.task == "multi-label"
    assert model.piece_s == 1.0


def test_a_file_and_its_array_give_the_same(model: Classifier, tmp_path: Path) -> None:
    audio = np.stack([noise(1.7, 44100), noise(1.7, 44100, seed=1)], axis=1)
    path = write(tmp_path / "stereo.wav", audio, 44100, subtype="FLOAT")
    expected = model.predict(path)
    assert expected.shape == (3,)
    assert expected.dtype == np.float32
    assert ((expected > 0) & (expected < 1)).all()
    np.testing.assert_array_equal(model.predict(audio, 44100), expected)
    np.testing.assert_array_equal(model.predict(str(path)), expected)


def test_audio_is_heard_by_the_resampler_of_the_shards(
    trained: RunDir, model: Classifier, tmp_path: Path
) -> None:
    method: Resampler = "kaiser_best"
    tagger, _ = read_model(trained.path / "model.safetensors")
    about = header(audio_settings={"resampler": method})
    write_model(path := tmp_path / "m.safetensors", tagger, Card.of("m", trained.config(), about))
    audio = noise(1.7, 44100)
    stored = np.rint(resample(audio, 44100, RATE, method).clip(-1, 1) * 32767) / 32767
    expected = model.predict(stored.astype(np.float32), RATE)
    np.testing.assert_array_equal(load(path).predict(audio, 44100), expected)
    assert not np.array_equal(model.predict(audio, 44100), expected)


def test_a_lone_safetensors_file_is_enough(
    trained: RunDir, model: Classifier, tmp_path: Path
) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((trained.path / "model.safetensors").read_bytes())
    np.testing.assert_array_equal(load(copy).predict(noise(3)), model.predict(noise(3)))


def test_all_of_a_long_file_is_heard(model: Classifier) -> None:
    audio = np.zeros(10 * RATE, np.float32)
    silent = model.predict(audio)
    for second in range(10):  # three pieces of a second would miss most of these
        loud = audio.copy()
        loud[second * RATE : (second + 1) * RATE] = noise(1)
        assert not np.array_equal(model.predict(loud), silent), second


def test_a_prediction_is_the_mean_over_pieces(model: Classifier) -> None:
    audio = noise(2.0)
    pieces = [model.predict(audio[start : start + RATE]) for start in (0, 8000, 16000)]
    # float32 means in another order
    np.testing.assert_allclose(model.predict(audio), np.mean(pieces, axis=0), atol=1e-6)


def test_a_short_clip_is_heard_as_in_training(model: Classifier) -> None:
    audio = noise(0.25)  # 2.5 rows: zeros up to 3, and again from its start
    period = np.pad(audio, (0, 800))
    repeated = np.resize(period, RATE)
    np.testing.assert_array_equal(model.predict(audio), model.predict(repeated))


def test_predictions_over_time_tile_the_clip(model: Classifier) -> None:
    audio = noise(2.3)
    timeline = model.predict_over_time(audio, hop_s=0.5)
    np.testing.assert_allclose(timeline.start_s, [0, 0.5, 1.0, 1.3])
    np.testing.assert_allclose(timeline.end_s, [1, 1.5, 2.0, 2.3])
    assert timeline.probability.shape == (4, 3)
    for start, probability in zip(timeline.start_s, timeline.probability, strict=True):
        piece = audio[round(start * RATE) :][:RATE]
        np.testing.assert_allclose(probability, model.predict(piece), atol=1e-6)
    short = model.predict_over_time(noise(0.3), hop_s=0.5)
    assert (short.start_s.tolist(), short.end_s.tolist()) == ([0.0], [0.3])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(16000, np.int16), "expected floats in .* found int16 of shape"),
        (np.zeros((2, 3, 4)), r"found float64 of shape \(2, 3, 4\)"),
        (np.zeros(100), "expected at least 25 ms, found 100 samples at 16000 Hz"),
        (np.full(16000, np.nan), "not finite, at sample 0"),
        (np.full(16000, 3e4), "its values reach 30000"),
        (np.stack([noise(1), -noise(1)], 1), "its channels cancel"),
        (Path("nowhere.wav"), "no file nowhere.wav"),
    ],
)
def test_what_is_no_audio_is_named(model: Classifier, audio: Any, message: str) -> None:
    with pytest.raises(FeatregError, match=message):
        model.predict(audio)


def test_a_hop_of_nothing_is_refused(model: Classifier) -> None:
    with pytest.raises(UsageError, match=r"--hop 0: .*at least one sample, 6\.25e-05 s"):
        model.predict_over_time(noise(1), hop_s=0)


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
    with pytest.raises(FeatregError, match="expected featreg-model version 1, found no format"):
        load(path)
    save_file(weights, path, {"format": "featreg-model", "version": "7"})
    with pytest.raises(FeatregError, match="version 1, found featreg-model version 7"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08" + bytes(7) + b"{}      "])
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(FeatregError, match=r"broken\.safetensors"):
        load(path)


def test_weights_of_another_model_are_named(trained: RunDir, tmp_path: Path) -> None:
    tagger, card = read_model(trained.path / "model.safetensors")
    write_model(
        path := tmp_path / "m.safetensors", tagger, dataclasses.replace(card, classes=("a",))
    )
    with pytest.raises(FeatregError, match=r"m\.safetensors: its weights do not fit.*fc_2"):
        load(path)


def test_what_needs_features_refuses_audio_alone(work: Path, concat: RunDir) -> None:
    message = "concat: --fusion concat needs the features tones+noise beside the audio"
    with pytest.raises(FeatregError, match=message.replace("+", r"\+")):
        load(concat.path)
    for arguments in (("predict", "x.wav", "--run", "concat"), ("export", "concat")):
        result = call(work, *arguments)
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output
