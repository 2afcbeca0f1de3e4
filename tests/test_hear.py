"""Modules of the HEAR API as features: their own numbers and times, and what they may not do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
from custom_feature_runs import rows_of, run, write_manifest

import featreg
from featreg.datasets.base import ClipError, UsageError
from featreg.datasets.collections.manifest import read
from featreg.extract.extractors.registry import FeatureSpec, find_sources, make_config, make_spec

STAND_INS = Path(__file__).parent / "stand_ins"
RATE = 8000


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The stand-in, where this process and those that it starts find it."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    import hear_stand_in

    yield hear_stand_in
    del sys.modules["hear_stand_in"]


@pytest.fixture
def weights(package: ModuleType, tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save(package.load_model().state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def noise(seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    signal = np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
    return signal.astype(np.float32)


def test_embeddings_and_times_are_the_modules(package: ModuleType, weights: Path) -> None:
    extractor = featreg.load_extractor(f"x=hear:hear_stand_in:{weights}")
    assert (extractor.name, extractor.dim, extractor.sample_rate) == ("x", 12, RATE)
    assert extractor.hop_s == 0.025
    model = package.load_model(str(weights))
    clips = [noise(seconds) for seconds in (0.03, 1.0, 3.456)]
    for clip, (embeddings, times) in zip(clips, extractor(clips, RATE), strict=True):
        with torch.no_grad():
            expected, at = package.get_timestamp_embeddings(torch.from_numpy(clip)[None], model)
        np.testing.assert_array_equal(embeddings, expected[0].numpy())
        np.testing.assert_allclose(times, at[0].numpy() / 1000, atol=1e-9)


def test_a_scene_is_the_embedding_of_each_piece(package: ModuleType, weights: Path) -> None:
    extractor = featreg.load_extractor(
        f"x=hear:hear_stand_in:{weights}", output="scene", window=1.0
    )
    assert (extractor.dim, extractor.hop_s) == (24, 1.0)
    model, clip = package.load_model(str(weights)), noise(10.5)
    embeddings, times = extractor(clip, RATE)
    pieces = np.pad(clip, (0, RATE // 2)).reshape(11, RATE)
    with torch.no_grad():
        expected = package.get_scene_embeddings(torch.from_numpy(pieces), model).numpy()
        short = package.get_scene_embeddings(torch.from_numpy(clip[None, :5000]), model).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    np.testing.assert_allclose(times, 0.5 + np.arange(11))
    np.testing.assert_allclose(extractor(clip[:5000], RATE)[0], short, atol=1e-5)
    ten = featreg.load_extractor(f"x=hear:hear_stand_in:{weights}", output="scene")
    assert ten.hop_s == 10.0


def test_from_the_command_to_shards(package: ModuleType, weights: Path, tmp_path: Path) -> None:
    dataset = write_manifest(tmp_path / "clips")
    command = f"prep extract --dataset {dataset} --workers 1"
    features = f"a=hear:hear_stand_in:{weights},b=hear:hear_stand_in"
    options = ["--features", features, "--set", "b.output=scene"]
    done = run(tmp_path / "work", command, *options)
    assert done.exit_code == 0, done.output
    extractor = featreg.load_extractor(f"a=hear:hear_stand_in:{weights}")
    found, scenes = (rows_of(tmp_path / "work", name) for name in ("a", "b"))
    scene = featreg.load_extractor("b=hear:hear_stand_in", output="scene")
    for clip in read(dataset).clips:
        np.testing.assert_allclose(found[clip.clip_id], extractor(clip.path)[0], atol=1e-5)
        # Random weights are the same in every process.
        np.testing.assert_allclose(scenes[clip.clip_id], scene(clip.path)[0], atol=1e-5)
    assert "nothing new to do" in run(tmp_path / "work", command, *options).output
    torch.manual_seed(4)
    torch.save(package.load_model().state_dict(), weights)
    changed = run(tmp_path / "work", command, *options, "--dry-run").output
    assert "a: 8 clips to compute: the weights have changed" in changed
    assert "b: nothing to do" in changed


FAULTY = """
import torch
class Model:
    sample_rate = 8000
    timestamp_embedding_size = 3
    scene_embedding_size = 3
def load_model(path=""):
    return Model()
def get_timestamp_embeddings(audio, model):
    times = torch.arange(audio.shape[1] // 800) * 100.0
    return torch.ones(len(audio), len(times), 3), times[None]
def get_scene_embeddings(audio, model):
    return torch.ones(len(audio), 3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder of its own, and no module of the test before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("faulty_hear", "hear_parent", "hear_parent.child"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def load_model", "def load_models", "faulty_hear does not define load_model"),
        ("def get_time", "def get_thyme", "does not define get_timestamp_embeddings"),
        ("sample_rate = 8000", "rate = 8000", "as sample_rate of the model of .* found None"),
        ("timestamp_embedding_size", "size", "as timestamp_embedding_size .* found None"),
        ("return Model()", "raise OSError('no file')", r"OSError: no file \(faulty_hear.py, line"),
        ("import torch", "import no_such_package", "imports no_such_package"),
        ("* 100.0", "** 2 * 10.0", "timestamps at a constant distance, found .* 0.010, 0.040"),
        ("* 100.0", "* -100.0", "timestamps that increase"),
        ("audio.shape[1] // 800", "1", "several timestamps .*x.output=scene"),
        ("len(times), 3", "len(times), 4", r"shape \(1, frames, 3\), found \(1, 20, 4\)"),
        ("len(times), 3", "len(times) - 1, 3", r"as many timestamps .*\(1, 20\) and \(1, 19, 3\)"),
        ("times = torch", "1 / 0; times = torch", r"ZeroDivisionError: .*, line"),
    ],
)
def test_a_module_that_does_not_follow_the_api_is_one_line(
    old: str, new: str, words: str, folder: Path
) -> None:
    (folder / "faulty_hear.py").write_text(FAULTY.replace(old, new))
    with pytest.raises(UsageError, match=f"x.*{words}") as caught:
        featreg.load_extractor("x=hear:faulty_hear")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "settings", "words"),
    [
        ("x=hear:no_such_hear", {}, "no module no_such_hear .*NAME=hear:MODULE"),
        ("x=hear:hear_parent.child", {}, "no module hear_parent.child"),
        ("x=hear:faulty_hear:none.pt", {}, "file not found: .*none.pt"),
        ("x=hear:faulty_hear", {"output": "all"}, "timestamps, scene"),
        ("x=hear:faulty_hear", {"window": -1, "output": "scene"}, "x.window=-1"),
        ("x=hear:faulty_hear", {"hop": 1}, "x.hop: no such setting"),
    ],
)
def test_requests_that_cannot_be_are_one_line(
    request_: str, settings: dict[str, object], words: str, folder: Path
) -> None:
    (folder / "faulty_hear.py").write_text(FAULTY)
    (folder / "hear_parent").mkdir()
    (folder / "hear_parent" / "__init__.py").touch()
    with pytest.raises(UsageError, match=words):
        featreg.load_extractor(request_, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("* 100.0", "* (100.0 if len(audio[0]) == 16000 else 98.0)", "timestamp 3 is 0.294 s, "),
        ("// 800)", "// 800 - 15 * (len(audio[0]) != 16000))", "x returned 15 frames for 3.00 s"),
        ("torch.ones(len(audio), len", "torch.ones(3, len", r"\(1, frames, 3\), found \(3, 30, 3"),
        ("return torch.ones(len(audio), len(times), 3)",
         "return audio.log()[:, :30, None].expand(1, 30, 3)", "x: frame .* not finite"),
        ("times = torch", "assert len(audio[0]) == 16000; times = torch", "x: AssertionError"),
    ],
)  # fmt: skip
def test_what_fails_later_fails_the_clip(old: str, new: str, words: str, folder: Path) -> None:
    (folder / "faulty_hear.py").write_text(FAULTY)
    ((name, source),) = find_sources(["x=hear:faulty_hear"], {}).items()
    config = make_config(name, {}, source=source)
    spec = make_spec(name, source, config, {}, "cpu", "float32")
    assert isinstance(spec, FeatureSpec)
    sys.modules.pop("faulty_hear")
    (folder / "faulty_hear.py").write_text(FAULTY.replace(old, new))
    extractor = spec.extractor()
    extractor._loaded = False
    with pytest.raises(ClipError, match=words):
        extractor.extract(noise(3.0))
