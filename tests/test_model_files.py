"""Models in ONNX and TorchScript files as features: the numbers are those of the model alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from custom_feature_runs import rows_of, run, write_manifest
from onnx_models import WEIGHTS, projection, save, tenths
from torchscript_models import save_means

import featreg
from featreg.datasets.base import ClipError, UsageError
from featreg.datasets.collections.manifest import read

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

Floats = npt.NDArray[np.float32]


def noise(samples: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def windows(signal: Floats, hop: int) -> Floats:
    """The windows of 800 samples of a signal, padded with zeros."""
    count = 1 + max(0, -(-(len(signal) - 800) // hop))
    padded = np.append(signal, np.zeros(800 + hop, np.float32))
    return np.stack([padded[k * hop : k * hop + 800] for k in range(count)])


@pytest.mark.parametrize("shape", [("batch", 800), (3, 800), (1, 800), (800,), ("b", "samples")])
def test_an_onnx_model_gives_what_it_gives_alone(shape: tuple[Any, ...], tmp_path: Path) -> None:
    import onnxruntime

    path = projection(tmp_path / "model.onnx", shape, sample_rate=8000, hop_s=0.05)
    settings = {"window": 0.1} if "samples" in shape else {}
    extractor = featreg.load_extractor(f"x=onnx:{path}", **settings)
    assert (extractor.name, extractor.dim, extractor.sample_rate) == ("x", 6, 8000)
    clips = [noise(samples, samples) for samples in (5000, 250, 800, 801, 16000)]
    for clip, (embeddings, times) in zip(clips, extractor(clips, 8000), strict=True):
        expected = windows(clip, 400) @ WEIGHTS
        np.testing.assert_allclose(embeddings, expected, atol=1e-4)
        np.testing.assert_allclose(times, 0.05 + 0.05 * np.arange(len(expected)))
    if shape == ("batch", 800):
        session = onnxruntime.InferenceSession(path)
        [alone] = session.run(None, {"audio": windows(clips[0], 400)[:9]})
        np.testing.assert_allclose(extractor(clips[0], 8000)[0][:9], alone, atol=1e-5)


def test_frames_of_an_onnx_model_and_the_choice_of_its_output(tmp_path: Path) -> None:
    path, clip = tenths(tmp_path / "model.onnx"), noise(4321)
    expected = np.append(clip, np.zeros(79)).astype(np.float32)[:4400].reshape(-1, 80)
    for hop in (0.1, 0.03):
        extractor = featreg.load_extractor(f"x=onnx:{path}", rate=8000, hop=hop, output="frames")
        embeddings, times = extractor(clip, 8000)
        assert embeddings.shape == (55, 80)
        np.testing.assert_array_equal(embeddings[:54], expected[:54])
        np.testing.assert_allclose(times, 0.005 + 0.01 * np.arange(55))
    sums = featreg.load_extractor(f"x=onnx:{path}", rate=8000, output="sums")
    np.testing.assert_allclose(
        sums(clip, 8000)[0], windows(clip, 800).reshape(-1, 10, 80).sum(axis=2), atol=1e-5
    )
    # Frames that are 8 ms apart, as the file says.
    path = tenths(path, sample_rate=8000, frame_s=0.008, hop_s=0.08)
    extractor = featreg.load_extractor(f"x=onnx:{path}", output="frames")
    assert extractor.hop_s == 0.008
    assert extractor(clip, 8000)[1][1] == pytest.approx(0.012)


def test_from_the_command_to_shards_and_once_more_when_the_file_changes(tmp_path: Path) -> None:
    dataset = write_manifest(tmp_path / "clips")
    path = projection(tmp_path / "one.onnx")
    other = tenths(tmp_path / "two.onnx")
    command = f"prep extract --dataset {dataset} --workers 1"
    options = ["--features", f"one=onnx:{path},two=onnx:{other}", "--set", "one.rate=8000",
               "--set", "two.rate=16000", "--set", "two.output=sums"]  # fmt: skip
    done = run(tmp_path / "work", command, *options)
    assert done.exit_code == 0, done.output
    extractor = featreg.load_extractor(f"one=onnx:{path}", rate=8000)
    one, two = (rows_of(tmp_path / "work", name) for name in ("one", "two"))
    for clip in read(dataset).clips:
        np.testing.assert_allclose(one[clip.clip_id], extractor(clip.path)[0], atol=1e-5)
        assert two[clip.clip_id].shape[1] == 10
    assert "nothing new to do" in run(tmp_path / "work", command, *options).output
    path.rename(tmp_path / "moved.onnx")  # the content counts, not the place
    options[1] = f"one=onnx:{tmp_path / 'moved.onnx'},two=onnx:{other}"
    assert "nothing new to do" in run(tmp_path / "work", command, *options).output
    projection(tmp_path / "moved.onnx", doc="other bytes")
    changed = run(tmp_path / "work", command, *options, "--dry-run")
    assert "one: 8 clips to compute: the weights have changed" in changed.output
    assert "two: nothing to do" in changed.output


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return save_means(tmp_path / "means.pt")


def test_a_torchscript_model(script: Path) -> None:
    clip = noise(3000)
    means = featreg.load_extractor(f"x=ts:{script}", window=0.1, output=0)
    assert means.sample_rate == 8000
    expected = windows(clip, 800).reshape(-1, 10, 80).mean(axis=2)
    np.testing.assert_allclose(means(clip, 8000)[0], expected, atol=1e-6)
    sums = featreg.load_extractor(f"x=ts:{script}", window=0.1, hop=0.05, output=1)
    np.testing.assert_allclose(sums(clip, 8000)[0][:, 0], windows(clip, 400).sum(axis=1), atol=1e-4)


def test_what_a_torchscript_model_cannot_do_is_one_line(script: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a model")
    for request, settings, words in [
        (f"x=ts:{script}", {"output": 0}, r"means\.pt takes windows of any length.*x\.window"),
        (f"x=ts:{script}", {"window": 0.1}, r"several outputs.*x\.output=NAME with one of 0, 1"),
        (f"x=ts:{script}", {"window": 0.1, "output": "a"}, r"has no output 'a'.*one of 0, 1"),
        (f"x=ts:{script}", {"window": 0.1001, "output": 0}, "RuntimeError: shape .* 1602"),
        (f"x=ts:{tmp_path}/text.pt", {"window": 1.0}, r"x: .*text\.pt cannot be opened"),
        (f"x=ts:{tmp_path}/none.pt", {"window": 1.0}, r"file not found: .*none\.pt"),
    ]:
        with pytest.raises(UsageError, match=words):
            featreg.load_extractor(request, **settings)  # type: ignore[arg-type]


def scaled(path: Path, factor: float, function: str) -> Path:
    """A model that applies a function to the scaled audio."""
    nodes = [("Mul", ["audio", "factor"], "scaled"), (function, ["scaled"], "embedding")]
    return save(path, nodes, constants={"factor": np.float32(factor)}, sample_rate=8000)


def make_faulty(folder: Path) -> None:
    projection(folder / "silent.onnx")
    projection(folder / "any.onnx", ("batch", "samples"), sample_rate=8000)
    projection(folder / "said.onnx", sample_rate="fast")
    tenths(folder / "two.onnx", sample_rate=8000)
    (folder / "text.onnx").write_text("not a model")
    save(folder / "tall.onnx", [("Identity", ["audio"], "embedding")], ("b", 1, 800))
    constants = {"axis": np.array([0])}
    nodes = [("ReduceMean", ["audio"], "embedding")]
    save(folder / "scalar.onnx", nodes, sample_rate=8000, constants=constants)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("silent", {}, r"silent\.onnx does not say its sample rate; add --set x\.rate=HZ"),
        ("silent", {"rate": 0}, r"does not say its sample rate"),
        ("silent", {"rate": -5}, "sample rate in Hz above 0, found -5"),
        ("silent", {"rate": 8000, "window": 0.2}, r"800 samples, 0\.1 s at 8000 Hz.* 0\.2 s"),
        ("silent", {"rate": 8000, "hop": -1}, "hop_s .* found -1"),
        ("silent", {"rate": "fast"}, r"x\.rate=fast: expected a int"),
        ("said", {}, "metadata_props .*'fast'"),
        ("any", {}, r"takes windows of any length; add --set x\.window=SECONDS"),
        ("any", {"window": 0.05}, "x=onnx:.*any.onnx: .*MatMul dimension mismatch"),
        ("two", {}, r"two\.onnx has several outputs; .*one of frames, sums"),
        ("two", {"output": "frame"}, r"has no output 'frame'; .*one of frames, sums"),
        ("two", {"output": "frames", "hop": 0.025}, r"multiple of 0\.01 s.* found 0\.025 s"),
        ("text", {}, r"x: .*text\.onnx cannot be opened"),
        ("tall", {}, r"\(batch, samples\) or \(samples,\), found audio \['b', 1, 800\]"),
        ("scalar", {}, r"shape \(2, dim\) or \(2, frames, dim\) .* found \(1, 1\)"),
        ("none", {}, "file not found: .*none.onnx"),
        (
            "silent",
            {"layer": 3},
            r"x\.layer: no such setting; .*: rate, window, hop, frame, output",
        ),
    ],
)
def test_what_an_onnx_model_cannot_do_is_one_line(
    model: str, settings: dict[str, object], words: str, tmp_path: Path
) -> None:
    make_faulty(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        featreg.load_extractor(f"x=onnx:{tmp_path}/{model}.onnx", **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_nan_fails_the_clip_by_name(tmp_path: Path) -> None:
    # The logarithm of negative samples.
    path = scaled(tmp_path / "model.onnx", 1.0, "Log")
    extractor = featreg.load_extractor(f"x=onnx:{path}")
    good, bad = np.full(1600, 0.5, np.float32), np.full(1600, -0.5, np.float32)
    with pytest.raises(ClipError, match=r"item 1 of the list: x: frame 0 .* not finite"):
        extractor([good, bad], 8000)
    assert extractor(good, 8000)[0].shape == (2, 800)


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = projection(tmp_path / "model.onnx", sample_rate=8000)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"x \(an ONNX model\) needs .*onnxruntime.*'\.\[onnx\]'"):
        featreg.load_extractor(f"x=onnx:{path}")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UsageError, match=r"x \(a LiteRT model\) .*ai-edge-litert.*\[tflite\]"):
        featreg.load_extractor(f"x=tflite:{path}")
    # A run that asks for it ends with status 2 before anything is computed.
    manifest = write_manifest(tmp_path / "clips")
    done = run(tmp_path / "work", f"prep extract --dataset {manifest} --features x=tflite:{path}")
    assert done.exit_code == 2
    assert [line.startswith("error: ") for line in done.output.splitlines()].count(True) == 1
