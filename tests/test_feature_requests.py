"""Requests ``NAME=SCHEME:SOURCE``, and features that installed packages register."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from custom_feature_runs import rows_of, run, write_manifest
from kit import tone

import featreg
from featreg.datasets.base import UsageError
from featreg.datasets.collections.manifest import read
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.extractors import registry
from featreg.extract.extractors.feature_options import parse_names
from featreg.extract.extractors.registry import SCHEMES, find_sources
from featreg.extract.pipeline.plan import Plan, Request, make_plan
from featreg.extract.pipeline.shard_job import extract_shard

# A scheme of the tests: the windows of a "model" are multiplied by the number in its file.
SCALED = """
from dataclasses import dataclass
from pathlib import Path
from featreg.datasets.base import UsageError
from featreg.extract.extractors.windowed import Windowed

LOADS = []

@dataclass(frozen=True)
class Config:
    hop: float = 0.1

class Scaled(Windowed):
    name = "scaled"
    Config = Config
    sample_rate = 8000
    window_s = 0.1

    @property
    def hop_s(self):
        return self.config.hop

    @property
    def files(self):
        return (self.source,)

    @classmethod
    def resolve(cls, source):
        if not Path(source).is_file():
            raise UsageError("file not found")
        return str(Path(source).absolute())

    def load(self):
        with open("loads.log", "a") as log:
            log.write(f"{self.name}\\n")
        self.factor = float(Path(self.source).read_text())

    def embed(self, windows):
        return windows.reshape(len(windows), -1, 4).mean(axis=1) * self.factor
"""


@pytest.fixture(autouse=True)
def _scheme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder with the module and two models, and no extractor of the test before."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scaled_scheme.py").write_text(SCALED)
    (tmp_path / "one.txt").write_text("1")
    (tmp_path / "two+two.txt").write_text("2")
    monkeypatch.setitem(SCHEMES, "scaled", ("scaled_scheme", "Scaled"))
    registry._build.cache_clear()
    yield
    sys.modules.pop("scaled_scheme", None)
    registry._build.cache_clear()


def loads(folder: Path) -> list[str]:
    """Names of the features whose network was loaded since the last call."""
    log = folder / "loads.log"
    found = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def test_two_models_of_one_scheme_are_two_features(tmp_path: Path) -> None:
    dataset = read(write_manifest(tmp_path / "clips"))
    folder = DatasetDir(tmp_path / "work" / "tones")
    folder.path.mkdir(parents=True)

    def plan() -> Plan:
        features, changes = "a=scaled:one.txt,b=scaled:two+two.txt", ["b.hop=0.05"]
        specs = registry.make_specs(dataset, features, changes, (), "cpu", "float32")
        assert loads(tmp_path) == ["a", "b"]
        return make_plan(dataset, folder, Request(specs))

    for job in plan().jobs:
        extract_shard(job)
    one, two = rows_of(tmp_path / "work", "a"), rows_of(tmp_path / "work", "b")
    assert one.keys() == two.keys()
    assert sorted(loads(tmp_path)) == ["a", "b"]
    for clip_id, frames in one.items():
        assert frames.shape[1] == 4
        np.testing.assert_allclose(two[clip_id][: 2 * len(frames) : 2], 2 * frames, rtol=1e-6)
    assert plan().jobs == ()
    (tmp_path / "one.txt").write_text("3")
    (job,) = plan().jobs
    assert plan().reasons == {"a": {"the weights have changed": 8}}
    extract_shard(job)
    (tmp_path / "work/tones/native/a/00000.h5").unlink()
    for clip_id, frames in rows_of(tmp_path / "work", "a").items():
        np.testing.assert_allclose(frames, 3 * one[clip_id], rtol=1e-6)


def test_a_worker_process_loads_the_network_once(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "clips")
    own = SCALED.replace("(self.source,)", "('one.txt',)").replace("self.source", "'one.txt'")
    (tmp_path / "scaled_scheme.py").write_text(own)
    command = f"prep extract --dataset {manifest} --workers 2 --shard-clips 2"
    done = run(tmp_path / "work", command, "--features", "scaled_scheme:Scaled")
    assert done.exit_code == 0, done.output
    assert loads(tmp_path) == ["scaled"] * 3  # where it was planned, and in each worker
    assert len(rows_of(tmp_path / "work", "scaled")) == 8


def test_in_python(tmp_path: Path) -> None:
    extractor = featreg.load_extractor("a=scaled:one.txt", hop=0.5)
    assert loads(tmp_path) == ["a"]
    assert (extractor.name, extractor.dim, extractor.hop_s) == ("a", 4, 0.5)
    signal = tone(1.0, 8000)[:, 0]
    embeddings, times = extractor(signal, 8000)
    np.testing.assert_allclose(embeddings[0], signal[:800].reshape(-1, 4).mean(axis=0), atol=1e-6)
    assert times.tolist() == [0.05, 0.55, 1.05]
    # The file is another one for the next extractor, not for this one.
    (tmp_path / "one.txt").write_text("5")
    louder = featreg.load_extractor("a=scaled:one.txt", hop=0.5)
    np.testing.assert_allclose(louder(signal, 8000)[0], 5 * embeddings, rtol=1e-6)
    np.testing.assert_array_equal(extractor(signal, 8000)[0], embeddings)


def test_a_plus_sign_in_a_file_name_is_not_between_features() -> None:
    assert parse_names("vggish+a=onnx:x+y.onnx, openl3+musicnn") == [
        "vggish", "a=onnx:x+y.onnx", "openl3", "musicnn"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("a=onxn:model.onnx", "a=onxn:model.onnx: expected NAME=SCHEME:SOURCE.*hear, onnx, ts"),
        ("a=model.onnx", "a=model.onnx: expected NAME=SCHEME:SOURCE"),
        ("a=onnx:", "a=onnx:: expected NAME=SCHEME:SOURCE"),
        ("=onnx:model.onnx", "with a name of your choice"),
        ("scaled:one.txt", "with a name of your choice"),
        ("a=scaled:none.txt", "none.txt: file not found"),
        ("a=scaled:one.txt,a=scaled:two+two.txt", "a is given twice"),
        ("vggish=scaled:one.txt", "the name vggish is in use"),
        ("a.b=scaled:one.txt", "'a.b' is the name of the feature"),
        ("a=scaled:one.txt --set a.rate=8000", "a.rate: no such setting; .*: hop"),
        ("a=scaled:one.txt --set a.hop=-1", "a: expected hop_s in seconds"),
        ("a=scaled:text.txt", "ValueError: could not convert string to float"),
    ],
)
def test_requests_that_cannot_be(features: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("not a number")
    manifest = write_manifest(tmp_path / "clips")
    done = run(tmp_path / "work", f"prep extract --dataset {manifest} --features {features}")
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert features.split()[0].partition("=")[0] in line
    with pytest.raises(UsageError, match=words):
        raise UsageError(line)


def install(folder: Path, name: str, value: str) -> None:
    """What pip writes for a package that registers an extractor."""
    info = folder / f"{name}_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[featreg.extractors]\n{name} = {value}\n")


def test_an_installed_package_registers_a_feature_by_name(tmp_path: Path) -> None:
    install(tmp_path, "scaled", "scaled_scheme:Scaled")
    install(tmp_path, "other", "scaled_scheme:Scaled")
    install(tmp_path, "gone", "no_such_module:Scaled")
    assert find_sources(["vggish", "scaled"], {}) == {
        "vggish": "", "scaled": "scaled_scheme:Scaled"
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"other: .*scaled_scheme:Scaled .* 'scaled'"):
        find_sources(["other"], {})
    with pytest.raises(UsageError, match="no module no_such_module"):
        find_sources(["gone"], {})
    with pytest.raises(UsageError, match=r"efficientat, .*scaled.* did you mean scaled"):
        featreg.load_extractor("scalde")
    with pytest.raises(UsageError, match=r"no such feature; expected one of audio, .*scaled"):
        find_sources(["scalde"], {})


PICKY = """
import numpy as np
from featreg.extract.extractors.windowed import Windowed

class Picky(Windowed):
    name = "picky"
    sample_rate = 8000
    window_s = 0.5

    def embed(self, windows):
        # train/3 has a tone of 880 Hz, as has no other clip
        peaks = np.abs(np.fft.rfft(windows)).argmax(axis=1)
        if (peaks == 440).any():
            raise ArithmeticError("too high")
        return windows[:, :3]
"""


def test_a_network_that_fails_on_a_clip_fails_that_clip_alone(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "clips")
    (tmp_path / "picky.py").write_text(PICKY)
    command = f"prep extract --dataset {manifest} --workers 1 --features picky:Picky"
    done = run(tmp_path / "work", command)
    assert done.exit_code == 1, done.output
    failures = pd.read_csv(tmp_path / "work" / "tones" / "failures.csv")
    assert failures.clip_id.tolist() == ["train/3"]
    assert "train3.wav: picky: ArithmeticError: too high" in failures.reason[0]
    assert len(rows_of(tmp_path / "work", "picky")) == 7
