"""Features from outside, as a class and as a folder of arrays, all the way to a trained model."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from custom_feature_runs import rows_of, run, write_arrays, write_manifest
from kit import tone

from featreg.datasets.base import ClipError, FeatregError, UsageError
from featreg.datasets.collections.manifest import read
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.extractors import custom as external
from featreg.extract.extractors import registry as features
from featreg.extract.extractors.custom import WholeClip, load_class
from featreg.extract.pipeline.plan import Plan, Request, make_plan
from featreg.extract.pipeline.shard_job import extract_shard

HERE = Path(__file__).parent
FAST = ["--encoder", "mel_cnn", "--width", "2", "--crop", "1", "--epochs", "1", "--batch-size", "2"]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What loading a user's module leaves behind does not reach the next test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    features._build.cache_clear()
    yield
    sys.modules.pop("mine", None)
    features._build.cache_clear()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("clips"))


def test_a_class_and_a_folder_of_its_arrays_go_all_the_way_and_agree(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = write_arrays(manifest, tmp_path / "arrays")
    # Two workers are processes of their own, and must find the module in this folder as well.
    monkeypatch.chdir(tmp_path)
    shutil.copy(HERE / "custom_features.py", tmp_path / "mine.py")
    one = run(tmp_path / "one", f"prep extract --dataset {manifest} --workers 2 --shard-clips 4",
              "--features", "mine:Chroma")  # fmt: skip
    assert one.exit_code == 0, one.output
    hop = 1024 / 22050
    two = run(tmp_path / "two", f"prep extract --dataset {manifest} --workers 1",
              "--features", "chroma", "--set", f"chroma.folder={tmp_path / 'arrays'}",
              "--set", f"chroma.hop={hop}", "--set", "chroma.first_center=0",
              "--set", f"chroma.window={2048 / 22050}")  # fmt: skip
    assert two.exit_code == 0, two.output
    for work in (tmp_path / "one", tmp_path / "two"):
        rows = rows_of(work, "chroma")
        assert rows.keys() == arrays.keys()
        for clip_id, expected in arrays.items():
            np.testing.assert_array_equal(rows[clip_id], expected)
        with native_shard(next((work / "tones" / "native" / "chroma").glob("*.h5"))) as shard:
            assert shard.header.timing == FrameTiming(hop, 2048 / 22050, 0.0)
        assert run(work, "prep align --resolution 0.1 --features chroma --workers 1").exit_code == 0
        index = read_index(work / "tones" / "aligned" / "chroma-0.1s" / "00000.h5")
        assert index.header.features["chroma"]["dim"] == 12
        done = run(work, "train run --reg conreg --chunks 2", *FAST)
        assert done.exit_code == 0, done.output
        (folder,) = (work / "runs").iterdir()
        assert json.loads((folder / "config.json").read_text())["config"]["features"] == ["chroma"]
        assert json.loads((folder / "report.json").read_text())["test"].keys() >= {"pr_auc"}


SIMPLE = """
from dataclasses import dataclass
import numpy as np
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.custom import WholeClip

@dataclass(frozen=True)
class Config:
    gain: float = 1.0
    mode: str | None = None

class Level(WholeClip):
    name = "level"
    Config = Config
    sample_rate = 8000
    dim = 1
    timing = FrameTiming(0.5, 0.5, 0.25)

    def compute(self, signal):
        if len(signal) > 8000 * 1.25:
            raise ArithmeticError("too long")
        return self.config.gain * np.abs(signal[: len(signal) // 4000 * 4000].reshape(-1, 4000)
                                         ).max(axis=1)[:, None]
"""


def extract_level(manifest: Path, folder: Path, *more: object) -> Result:
    command = f"prep extract --dataset {manifest} --workers 1 --features mine:Level"
    return run(folder / "work", command, *more)


def test_what_a_class_raises_fails_its_clip_alone_and_edited_code_is_another_feature(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SIMPLE)
    done = extract_level(manifest, tmp_path)
    assert done.exit_code == 1
    assert "7 clips extracted, 1 failed" in done.output
    failures = pd.read_csv(tmp_path / "work" / "tones" / "failures.csv")
    (failure,) = failures.values.tolist()
    assert failure[:2] == ["train/3", "extract"]
    line = SIMPLE[: SIMPLE.index("raise")].count("\n") + 1
    assert failure[2] == f"level: ArithmeticError: too long (mine.py, line {line})"
    assert len(rows_of(tmp_path / "work", "level")) == 7
    # The clip has audio, and no rows of the feature: aligning both leaves it out and says so.
    aligned = run(tmp_path / "work", "prep align --resolution 0.1 --workers 1")
    assert "1 clip omitted" in aligned.output
    assert "nothing new to do" in extract_level(manifest, tmp_path).output

    louder = extract_level(manifest, tmp_path, "--set", "level.gain=2", "--dry-run")
    assert "gain was 1.0, now 2.0" in louder.output
    sys.modules.pop("mine")
    features._build.cache_clear()
    (tmp_path / "mine.py").write_text(SIMPLE.replace("1.25", "9"))
    os.utime(tmp_path / "mine.py", (1, 1))  # not the bytecode of the second before
    mended = extract_level(manifest, tmp_path)
    assert mended.exit_code == 0, mended.output
    assert len(rows_of(tmp_path / "work", "level")) == 8


def test_code_that_is_edited_while_it_runs_is_not_what_its_rows_say(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset, folder = read(manifest), DatasetDir(tmp_path / "work" / "tones")
    folder.path.mkdir(parents=True)

    def edit(code: str, seconds: int) -> Plan:
        """The plan of a process that starts now, to whose numbers `code` is new."""
        (tmp_path / "mine.py").write_text(code)
        os.utime(tmp_path / "mine.py", (seconds, seconds))  # not the bytecode of before
        sys.modules.pop("mine", None)
        features._build.cache_clear()
        specs = features.make_specs(dataset, "mine:Level", (), (), "cpu", "float32")
        return make_plan(dataset, folder, Request(specs, shard_clips=2), splits=("train",))

    first, second = edit(SIMPLE.replace("1.25", "9"), 1).jobs
    extract_shard(first)
    (tmp_path / "mine.py").write_text("not even Python")
    extract_shard(second)
    plan = edit(SIMPLE.replace("1.25", "9").replace("np.abs", "2 * np.abs"), 2)
    again = plan.jobs
    assert [job.numbers for job in again] == [{"level": 2}, {"level": 3}]
    (reason,) = plan.reasons["level"]
    assert "code_sha256 was" in reason
    # A worker that still has the code of before must not write under the new code's hash.
    worker = edit(SIMPLE.replace("1.25", "9"), 3)
    assert worker.jobs == ()
    with pytest.raises(FeatregError, match=r"level: worker .* other code .*restart the workers"):
        extract_shard(again[0])


@pytest.mark.parametrize(
    ("change", "word", "message"),
    [
        (("", ""), "mine:Levels", "'Levels'.*Config, Level"),
        (("", ""), "mine:np", "no extractor called 'np'"),
        (("", ""), "yours:Level", "no module yours in .* such as mine:Chroma"),
        (("import numpy", "import nonumpy"), "mine:Level", "nonumpy"),
        (("    dim = 1", "    dim = 1 / 0"), "mine:Level", r"ZeroDivisionError: .* \(mine.py, "),
        (("def compute", "def rows_of"), "mine:Level", "Level does not define compute"),
        (('name = "level"', ""), "mine:Level", "Level has no name"),
        (('"level"', '"my.level"'), "mine:Level", "'my.level' is the name of the feature"),
        (('"level"', '"vggish"'), "mine:Level", "the name vggish"),
        (("dim = 1", "dim = 0"), "mine:Level", "expected a number above 0 as Level.dim, found 0"),
        (
            ("timing = FrameTiming(0.5, 0.5, 0.25)", "timing = 0.5"),
            "mine:Level",
            "expected a FrameTiming",
        ),
        (("", ""), "mine:Level,mine:Level", "mine:Level.* twice"),
    ],
)
def test_classes_that_cannot_be(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str],
    word: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SIMPLE.replace(*change) if change[0] else SIMPLE)
    with pytest.raises(UsageError, match=message):
        features.make_specs(read(manifest), word, (), (), "cpu", "float32")


@pytest.mark.parametrize("old_spelling", [False, True])
def test_settings_of_a_class_are_its_config(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_spelling: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    optional = "import typing\n" + SIMPLE.replace("str | None", "typing.Optional[str]")
    (tmp_path / "mine.py").write_text(optional if old_spelling else SIMPLE)

    def level(*assignments: str) -> features.FeatureSpec:
        dataset = read(manifest)
        return features.make_specs(dataset, "mine:Level", assignments, (), "cpu", "float32")[1]

    spec = level("level.gain=2", "level.mode=soft")
    extractor = spec.extractor()
    assert isinstance(extractor, load_class("mine:Level"))
    assert (spec.name, extractor.config.gain, extractor.config.mode) == ("level", 2.0, "soft")
    # What travels through a scheduler names the user's module, and does not need it.
    assert b"mine\n" not in pickle.dumps(spec, protocol=0)
    with pytest.raises(UsageError, match=r"level\.tone.* gain, mode"):
        level("level.tone=2")


def test_the_example_of_the_module_works_as_it_stands(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = str(external.__doc__).partition("::\n\n")[2].partition("\n\nIf a network")[0]
    (tmp_path / "mine.py").write_text(textwrap.dedent(example))
    _, spec = features.make_specs(read(manifest), "mine:Chroma", (), (), "cpu", "float32")
    rows = spec.extractor().extract(tone(1.0, 22050)[:, 0])
    assert rows.shape == (1 + 22050 // 512, 12)
    assert rows.mean(axis=0).argmax() == 9  # 220 Hz is an A, nine semitones above C


class Promise(WholeClip):
    """Returns what it is told to."""

    name = "promise"
    sample_rate = 100
    dim = 3
    timing = FrameTiming(0.1, 0.1, 0.05)
    given: object = None

    def compute(self, signal: np.ndarray) -> np.ndarray:
        return self.given  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((10, 2)), r"promise .*\(10, 2\), expected \(\w+, 3\)"),
        (np.zeros(10), r"shape \(10,\), expected"),
        (np.zeros((0, 3)), r"shape \(0, 3\), expected .* at least 1 frame"),
        (np.zeros((100, 3)), r"100 frames for 1.00 s, expected about 10 with a hop of 0.1 s"),
        (np.full((10, 3), np.nan), r"promise: frame 0 \(at 0.050 s\) .* not finite"),
        (np.full((10, 3), 1e60), r"promise: frame 0 \(at 0.050 s\) .* not finite as float32"),
        (np.full((10, 3), "x"), "values of type <U1, expected numbers"),
        (None, "values of type object"),
    ],
)
def test_rows_that_were_not_promised_fail_their_clip(rows: object, message: str) -> None:
    promise = Promise(Promise.Config(), {})
    promise.given = rows
    with pytest.raises(ClipError, match=message):
        promise.extract(np.zeros(100, np.float32))


def test_integers_are_rows_too() -> None:
    promise = Promise(Promise.Config(), {})
    promise.given = np.arange(30).reshape(10, 3).tolist()
    rows = promise.extract(np.zeros(100, np.float32))
    assert rows.dtype == np.float32
    assert rows.ravel().tolist() == list(range(30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--features", "chroma"],
            "no such feature; expected one of audio, .*MODULE:CLASS.*ma.folder",
        ),
        (["--features", "made", "--set", "made.folder=."], r"made\.hop"),
        (["--features", "made", "--set", "made.folder=.", "--set", "made.hop=x"], "a float"),
        (["--features", "made", "--set", "made.folder=.", "--set", "made.size=1"], "no such sett"),
        (["--features", "a/b", "--set", "a/b.folder=."], "'a/b' is the name of the feature"),
    ],
)
def test_one_line_for_what_cannot_be(
    manifest: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = run(tmp_path, f"prep extract --dataset {manifest} --workers 1", *options)
    assert done.exit_code == 2
    (line,) = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)
