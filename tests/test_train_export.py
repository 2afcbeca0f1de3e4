"""`train export`: the same numbers elsewhere, and nothing but the plain model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from synthetic import RATE
from toy_runs import CLASSES, call, noise

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.deploy.classifier import load_model
from featreg.train.deploy.export import SUFFIXES, export
from featreg.train.deploy.exported_model import AudioModel
from featreg.train.deploy.model_file import Card, read_model, write_model
from featreg.train.experiments.params import count
from featreg.train.training.run_dir import RunDir

pytest_plugins = "run_fixtures"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # it still works
]


def require_onnx() -> None:
    """The packages, and the torch that is known to export."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    if tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) < (2, 13):
        pytest.skip(f"torch {torch.__version__} may not export to ONNX")


def original(trained: RunDir) -> AudioModel:
    return AudioModel(*read_model(trained.path / "model.safetensors")).eval()


@pytest.fixture(scope="module", params=list(SUFFIXES))
def exported(request: pytest.FixtureRequest, work: Path, trained: RunDir) -> Path:
    if request.param == "onnx":
        require_onnx()
    result = call(work, "export", "trained", "--format", request.param)
    assert result.exit_code == 0, result.output
    differences = [
        float(line.split()[-1]) for line in result.stdout.splitlines() if "difference" in line
    ]
    assert len(differences) == 3
    assert max(differences) < 1e-5
    plain = count(original(trained))
    assert f"{plain:,} parameters" in result.stdout
    return work / "exports" / f"trained{SUFFIXES[request.param]}"


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_a_run_is_called_as_its_folder_however_that_is_spelled(
    work: Path, trained: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    result = call(work, "export", ".", "--format", "torchscript")
    assert result.exit_code == 0, result.output
    assert (work / "exports" / "trained.pt").is_file()
    assert not (work / "exports" / ".pt").exists()
    monkeypatch.chdir(work)
    found = json.loads(call(work, "eval", "runs/../runs/trained", "--format", "json").stdout)
    assert found["run"] == "trained"


@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("seconds", [0.05, 0.95, 1.0, 2.31])
def test_an_exported_model_says_what_the_original_says(
    exported: Path, trained: RunDir, clips: int, seconds: float
) -> None:
    audio = np.stack([noise(seconds, seed=k) for k in range(clips)])
    with torch.no_grad():
        expected = original(trained)(torch.from_numpy(audio)).numpy()
        if exported.suffix == ".onnx":
            [found] = session(exported).run(None, {"audio": audio})
        elif exported.suffix == ".pt":
            found = torch.jit.load(exported)(torch.from_numpy(audio)).numpy()
        else:
            found = AudioModel(*read_model(exported)).eval()(torch.from_numpy(audio)).numpy()
    assert found.shape == (clips, 3)
    # float32 sums in another order
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_exported_agrees_with_the_classifier(trained: RunDir) -> None:
    model = load_model(trained.path)
    for seconds in (0.25, 1.0):  # up to one piece they hear the same, but for 16 bit
        audio = np.rint(noise(seconds) * 32767).astype(np.float32) / 32767
        with torch.no_grad():
            [expected] = original(trained)(torch.from_numpy(audio)[None]).numpy()
        np.testing.assert_allclose(model.probabilities(audio, RATE), expected, atol=1e-6)


def test_an_exported_file_holds_the_plain_model_and_no_more(
    exported: Path, trained: RunDir
) -> None:
    plain = original(trained)
    names = {name: p.numel() for name, p in plain.named_parameters()}
    if exported.suffix == ".onnx":
        import onnx

        graph = onnx.load(exported)
        there = {t.name: int(np.prod(t.dims)) for t in graph.graph.initializer}
        assert [value.name for value in graph.graph.input] == ["audio"]
        buffers = {name for name, _ in plain.named_buffers()}
        # What is neither is a constant of the graph: the window of the transform, and scalars.
        rest = {name: n for name, n in there.items() if name not in names.keys() | buffers}
        assert sum(rest.values()) <= 512 + 20
        about = {entry.key: entry.value for entry in graph.metadata_props}
        assert about["classes"].split("\n") == list(CLASSES)
        assert about["sample_rate"] == "16000"
    elif exported.suffix == ".pt":
        extra = {"card.json": ""}
        script = torch.jit.load(exported, _extra_files=extra)
        there = {name: p.numel() for name, p in script.named_parameters()}
        assert there.keys() == names.keys()
        assert json.loads(extra["card.json"])["classes"] == list(CLASSES)
    else:
        with safe_open(exported, "pt") as file:
            there = {f"tagger.{name}": file.get_tensor(name).numel() for name in file.keys()}  # noqa: SIM118
    assert {name: there[name] for name in names} == names
    assert not any("regularizer" in name or name.endswith("f.weight") for name in there)
    assert b"tones" not in exported.read_bytes()


def test_a_copy_that_differs_is_not_written(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "featreg.train.deploy.export._to_torchscript",
        lambda *_: lambda audio: np.zeros((len(audio), 3)),
    )
    path = tmp_path / "m.pt"
    with pytest.raises(FeatregError, match=r"m\.pt: not written"):
        export(trained.path / "model.safetensors", "torchscript", path)
    assert not path.exists()


def test_a_failure_of_torch_is_one_line(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_onnx()

    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("a page of text")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(FeatregError, match=r"cannot export mel_cnn to ONNX.*--format"):
        export(trained.path / "model.safetensors", "onnx", tmp_path / "m.onnx")


def test_missing_packages_are_named(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"onnxruntime: pip install '\.\[onnx\]' in feat"):
        export(trained.path / "model.safetensors", "onnx", tmp_path / "m.onnx")


def test_the_harmonic_cnn_leaves_home(tmp_path: Path) -> None:
    """With the padding of Speech Commands, which must not depend on the example's length."""
    require_onnx()
    options = {"width": 2, "samples": RATE, "time_pools": [2, 1], "pad_to": 16128}
    card = Card("m", "harmonic_cnn", options, "none", CLASSES, "single-label", RATE, RATE, 3, 0.1)
    write_model(path := tmp_path / "model.safetensors", card.build(), card)
    for format in ("onnx", "torchscript"):
        found = export(path, format, tmp_path / format)
        assert max(each.difference for each in found) < 1e-5
