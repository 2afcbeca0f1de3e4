"""Models that need features, on audio alone: the same features and the same predictions."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from kit import tone, write
from toy_runs import RECIPE, call

from featreg import FeatregError, UsageError, load_model
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.reader import ShardReader
from featreg.extract.cli.prep import prep
from featreg.train.config.config import Config
from featreg.train.deploy import compute_features
from featreg.train.deploy.model_file import Card, read_model, write_model
from featreg.train.deploy.recording import read_recording
from featreg.train.training.run import run

pytest_plugins = "run_fixtures"
pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = ("musicnn", "chroma", "birds")
METHODS = ("features", "concat", "film", "probe")
# The same numbers in batches of other sizes; the probabilities have six decimals in the CSV.
TOLERANCE = 1e-4


def onnx_model(path: Path, **said: object) -> Path:
    from onnx_models import projection

    return projection(path, sample_rate=8000, **said)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Tones of one or two seconds with features of three kinds, and a run of each method."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("work")
    rows = ["path,label,split"]
    for k in range(16):
        split = "train" if k < 8 else "valid" if k < 12 else "test"
        path = write(folder / f"audio/{k}.wav", tone(1.1 + 0.13 * (k % 7), 22050, 1 + k % 2), 22050)
        rows.append(f"{path},{'low' if k % 2 else 'high'},{split}")
    (folder / "tones.csv").write_text("\n".join(rows))
    model = onnx_model(folder / "birds.onnx")
    features = f"musicnn,custom_features:Chroma,birds=onnx:{model}"
    line = ["extract", "--dataset", str(folder / "tones.csv"), "--features", features]
    line += ["--set", "birds.rate=8000", "--set", "birds.hop=0.05", "--workers", "1"]
    line += ["--work", str(folder)]
    for command in (
        line,
        ["align", "--resolution", "0.1", "--mode", "area", "--work", str(folder)],
    ):
        result = CliRunner().invoke(prep, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    for method in METHODS[:3]:
        recipe = replace(RECIPE, epochs=1, feature_norm="standardize")
        config = Config(
            dataset="tones", aligned=aligned(folder).name, preset="default", reg="none",
            fusion=method, features=FEATURES, alpha=0.0, fraction=1.0, seed=0, metric="accuracy",
            devices=1, recipe=recipe,
        )  # fmt: skip
        run(config, folder, method)
    names = ("--features", ",".join(FEATURES), "--run-name", "probe", "--pool", "mean+std")
    result = call(folder, "probe", *names)
    assert result.exit_code == 0, result.output
    return folder


def aligned(work: Path) -> Path:
    (found,) = (work / "tones/aligned").iterdir()
    return found


def model_of(work: Path, method: str) -> Path:
    return work / "runs" / method / "model.safetensors"


def changed(work: Path, path: Path, feature: str, **changes: Any) -> Path:
    """A copy of the probe whose card describes a feature differently."""
    tagger, card = read_model(model_of(work, "probe"))
    features = {**card.features, feature: {**card.features[feature], **changes}}
    write_model(path, tagger, replace(card, features=features))
    return path


def test_features_on_the_fly_are_those_of_the_shards(work: Path) -> None:
    model = load_model(model_of(work, "concat"))
    _, card = read_model(model_of(work, "concat"))
    assert (card.mode, len(card.feature_mean)) == ("area", card.feature_dim)
    assert card.features["chroma"]["request"] == "custom_features:Chroma"
    assert card.features["birds"]["request"] == f"birds=onnx:{work / 'birds.onnx'}"
    assert "request" not in card.features["musicnn"]
    count = 0
    for path in aligned(work).glob("*.h5"):
        index, names = read_index(path), [f"features/{name}" for name in FEATURES]
        reader = ShardReader(path, names)
        ends = zip(index.clip_id, index.offset[:-1], index.offset[1:], strict=True)
        for clip_id, first, last in ends:
            path = work / "audio" / Path(clip_id).name
            found = model.input_of(read_recording(path, model.wanted))
            assert found.frames is not None
            stored = np.empty((last - first, card.feature_dim), np.float32)
            column = 0
            for name in FEATURES:
                dim = card.features[name]["dim"]
                reader.read(f"features/{name}", int(first), stored[:, column : column + dim])
                column += dim
            values = found.frames * np.float32(card.feature_std) + np.float32(card.feature_mean)
            np.testing.assert_allclose(values, stored, atol=TOLERANCE, rtol=TOLERANCE)
            count += 1
    assert count == 16


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_those_of_the_run(work: Path, method: str) -> None:
    expected = pd.read_csv(work / "runs" / method / "predictions.csv", index_col="clip_id")
    files = [work / "audio" / Path(clip_id).name for clip_id in expected.index]
    found = pd.DataFrame(load_model(work / "runs" / method).predict(files))
    np.testing.assert_allclose(found, expected[list(found)], atol=TOLERANCE)
    result = call(work, "predict", *files, "--run", method, "--format", "csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row, (_, values) in zip(rows, expected.iterrows(), strict=True):
        assert float(row["high"]) == pytest.approx(values["high"], abs=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_and_times_over_a_long_clip(work: Path, method: str) -> None:
    model = load_model(work / "runs" / method)
    audio = tone(3.7, 44100)[:, 0]
    timeline = model.predict_over_time(audio, 44100, hop_s=0.25)
    assert timeline.end_s[-1] == pytest.approx(3.7, abs=1e-3)
    assert (np.diff(timeline.start_s) > 0).all()
    embedding, times = model.embed(audio, 44100)
    assert len(embedding) == len(times)
    assert (np.diff(times) > 0).all()
    assert 0 <= times[0] < times[-1] < 3.7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("format", ["onnx", "torchscript", "safetensors"])
def test_an_export_says_which_part_it_contains(
    work: Path, tmp_path: Path, method: str, format: str
) -> None:
    path = tmp_path / "model"
    result = call(work, "export", method, "--format", format, "--output", path)
    assert result.exit_code == 0, result.output
    assert "musicnn+chroma+birds" in result.output
    if format == "safetensors":
        file = work / "audio/14.wav"
        assert load_model(path).predict(file) == load_model(work / "runs" / method).predict(file)
        return
    assert "not the extractors" in result.output
    if format == "onnx":
        import onnxruntime

        inputs = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()
        expected = ["audio", "features"] if method in ("concat", "film") else ["features"]
        assert [each.name for each in inputs] == expected
        assert inputs[-1].shape[-1] == read_model(model_of(work, method))[1].feature_dim
        assert (inputs[-1].shape[1] == "frames") == (method == "probe")


@pytest.mark.parametrize(
    ("feature", "changes", "facts"),
    [
        ("musicnn", {"weights_sha256": "0" * 64}, ["musicnn", "0" * 16, "--weights musicnn=FILE"]),
        ("birds", {"request": "birds=onnx:/nowhere/b.onnx"}, ["/nowhere/b.onnx", "birds=FILE"]),
        ("chroma", {"request": "nowhere:Chroma"}, ["chroma", "nowhere"]),
        ("chroma", {"settings": {"made": "elsewhere"}}, ["chroma", "another program"]),
        ("chroma", {"hop_s": 0.5}, ["chroma", "hop_s", "0.5"]),
    ],
)
def test_an_extractor_that_differs_or_is_missing_is_one_line(
    work: Path, tmp_path: Path, feature: str, changes: dict[str, Any], facts: list[str]
) -> None:
    path = changed(work, tmp_path / "m.safetensors", feature, **changes)
    result = call(work, "predict", work / "audio/0.wav", "--run", path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    for fact in facts:
        assert fact in result.stderr


def test_a_model_file_that_was_moved_is_given_by_hand(work: Path, tmp_path: Path) -> None:
    file, audio = onnx_model(tmp_path / "moved.onnx"), work / "audio/14.wav"
    path = changed(work, tmp_path / "m.safetensors", "birds", request="birds=onnx:/no/b.onnx")
    expected = load_model(work / "runs/probe").predict(audio)
    assert load_model(path, weights={"birds": file}).predict(audio) == expected
    result = call(work, "predict", audio, "--run", path, "--weights", f"birds={file}")
    assert result.exit_code == 0, result.output
    with pytest.raises(UsageError, match="openl3"):
        load_model(path, weights={"birds": file, "openl3": file})
    onnx_model(file, note="another file")
    with pytest.raises(FeatregError, match=r"birds .*sha256"):
        load_model(path, weights={"birds": file})
    for wrong in ("birds", f"birds={tmp_path / 'nowhere'}"):
        assert call(work, "predict", audio, "--run", path, "--weights", wrong).exit_code == 2


def test_a_model_for_audio_alone_has_no_extractors(work: Path, tmp_path: Path) -> None:
    options = {"width": 2, "samples": 16000}
    card = Card("m", "mel_cnn", options, "none", ("a", "b"), "single-label", 16000, 16000, 3, 0.1)
    write_model(path := tmp_path / "m.safetensors", card.build(), card)
    with pytest.raises(UsageError, match="needs only audio"):
        load_model(path, weights={"vggish": path})


def test_a_card_without_its_alignment_is_refused(work: Path, tmp_path: Path) -> None:
    tagger, card = read_model(model_of(work, "film"))
    write_model(path := tmp_path / "m.safetensors", tagger, replace(card, mode=""))
    with pytest.raises(FeatregError, match="aligned"):
        load_model(path)


def test_one_clip_that_an_extractor_refuses_fails_alone(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featreg.datasets.base import ClipError

    whole = compute_features.FeatureInput.frames

    def frames(self: Any, recording: Any) -> Any:
        if recording.duration_s > 1.7:
            raise ClipError("extract", "chroma: no frames")
        return whole(self, recording)

    monkeypatch.setattr(compute_features.FeatureInput, "frames", frames)
    files = [work / f"audio/{k}.wav" for k in (0, 6, 1)]
    result = call(work, "predict", *files, "--run", "probe", "--format", "csv")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 3
    assert f"{files[1]}: chroma: no frames" in result.stderr
