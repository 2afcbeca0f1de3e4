"""``prep export``: what it writes is what the shards hold, in every format."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from featreg.datasets.base import Clip, Dataset, FeatregError, UsageError
from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer
from featreg.datasets.shards.native import Failure, NativeHeader, native_writer
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.cli.prep import prep
from featreg.extract.export.pool import pooled
from featreg.extract.export.read_features import read_features

CLASSES = ("cat", "dog")
FRAMES = {"a": 3, "b": 1, "c": 4}
LABELS = {"a": ([1, 1], [1, 1]), "b": ([0, 0], [0, 0]), "c": ([0, 1], [1, 1])}
SPLIT = {"a": "train", "b": "train", "c": "test"}
TIMING = FrameTiming(0.5, 1.0, 0.25)
DIM = 2


def frames_of(clip_id: str) -> np.ndarray:
    rng = np.random.default_rng(ord(clip_id))
    return rng.standard_normal((FRAMES[clip_id], DIM)).astype(np.float32)


def clip(clip_id: str) -> Clip:
    label, mask = (np.array(each, np.uint8) for each in LABELS[clip_id])
    return Clip(clip_id, Path(f"{clip_id}.wav"), SPLIT[clip_id], label, mask)  # type: ignore[arg-type]


def write_native(path: Path, ids: str, feature: str = "vggish", factor: float = 1.0) -> None:
    header = NativeHeader("mine", feature, DIM, "float32", 1.0, 0.0, TIMING, 16000, "", {})
    with native_writer(path, header) as shard:
        for clip_id in ids:
            shard.append(clip_id, factor * frames_of(clip_id), FRAMES[clip_id] / 2, "x")
        shard.fail(Failure("d", "decode", "damaged", "x"))


@pytest.fixture
def folder(tmp_path: Path) -> DatasetDir:
    """Three clips in native shards, one of them in two, and in one aligned shard."""
    folder = DatasetDir(tmp_path / "work" / "mine")
    folder.path.mkdir(parents=True)
    clips = tuple(clip(clip_id) for clip_id in FRAMES)
    folder.write_dataset(Dataset("mine", CLASSES, clips), ["vggish"])
    write_native(folder.native("vggish") / "00000.h5", "ac", factor=7.0)
    write_native(folder.native("vggish") / "00001.h5", "ba")
    write_native(folder.native("vggish") / "00002.h5", "c")
    feature = {"dim": DIM, "columns": [0, DIM], **{
        name: getattr(TIMING, name) for name in ("hop_s", "window_s", "first_center_s")
    }, "weights_sha256": "", "settings": {}}  # fmt: skip
    header = AlignedHeader("mine", "multi-label", CLASSES, 0.1, "repeat", 16000,
                           {"vggish": feature}, ())  # fmt: skip
    with aligned_writer(folder.aligned("all") / "00000.h5", header, "x") as shard:
        for each in clips:
            shard.append(each, {"vggish": frames_of(each.clip_id)}, np.zeros(9, np.int16), 0.3)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(prep, ["export", *map(str, arguments)])


def centers(clip_id: str, aligned: bool) -> list[float]:
    """By hand: natively 0.25 s, then every 0.5 s; aligned 0.05 s, then every 0.1 s."""
    first, hop = (0.05, 0.1) if aligned else (0.25, 0.5)
    return [first + hop * k for k in range(FRAMES[clip_id])]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("format", ["npz", "npy"])
def test_arrays_by_frame(folder: DatasetDir, tmp_path: Path, format: str, aligned: bool) -> None:
    path = folder.aligned("all") if aligned else folder.native("vggish")
    done = run(path, "--format", format, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    if format == "npz":
        arrays = dict(np.load(tmp_path / "out" / "vggish.npz"))
    else:
        files = (tmp_path / "out" / "vggish").iterdir()
        arrays = {file.stem: np.load(file) for file in files}
    assert sorted(arrays["clip_id"]) == ["a", "b", "c"]
    assert arrays["values"].dtype == np.float32
    for k, clip_id in enumerate(arrays["clip_id"]):
        part = slice(*arrays["offset"][k : k + 2])
        np.testing.assert_array_equal(arrays["values"][part], frames_of(clip_id))
        # 1e-12: the times are float64 in seconds.
        np.testing.assert_allclose(arrays["times"][part], centers(clip_id, aligned), atol=1e-12)
        assert (arrays["label"][k].tolist(), arrays["label_mask"][k].tolist()) == LABELS[clip_id]
        assert arrays["split"][k] == SPLIT[clip_id]
    assert arrays["classes"].tolist() == list(CLASSES)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_tables(folder: DatasetDir, tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[format]
    assert run(folder.path / "native", "--format", format, "-o", tmp_path).exit_code == 0
    table = read(tmp_path / f"vggish.{format}")  # type: ignore[operator]
    assert list(table.columns) == ["clip_id", "time_s", "vggish_0", "vggish_1"]
    for clip_id, rows in table.groupby("clip_id"):
        values = rows[["vggish_0", "vggish_1"]].to_numpy(np.float32)
        np.testing.assert_array_equal(values, frames_of(clip_id))
        np.testing.assert_allclose(rows["time_s"], centers(clip_id, False), atol=1e-12)

    line = (folder.aligned("all"), "--format", format, "--pool", "mean+std", "-o", tmp_path)
    assert run(*line).exit_code == 0
    table = read(tmp_path / f"vggish.{format}").set_index("clip_id")  # type: ignore[operator]
    assert table.fillna("")["labels"].to_dict() == {"a": "cat|dog", "b": "", "c": "dog"}
    assert table["split"].to_dict() == SPLIT
    for clip_id in FRAMES:
        names = [f"vggish_{kind}_{k}" for kind in ("mean", "std") for k in range(DIM)]
        found = table.loc[clip_id, names]
        expected = [*frames_of(clip_id).mean(axis=0), *frames_of(clip_id).std(axis=0)]
        # 1e-6: float32 values of about 1.
        np.testing.assert_allclose(found.to_numpy(float), expected, atol=1e-6)


def test_pooling_by_hand() -> None:
    frames = np.array([[1, -4], [3, 2]], np.float32)
    assert pooled(frames, "mean").tolist() == [2, -1]
    assert pooled(frames, "max").tolist() == [3, 2]
    assert pooled(frames, "mean+std").tolist() == [2, -1, 1, 3]


def test_pooled_arrays_have_one_frame_per_clip(folder: DatasetDir, tmp_path: Path) -> None:
    line = (folder.native("vggish"), "--format", "npz", "--pool", "max", "-o", tmp_path)
    assert run(*line).exit_code == 0
    arrays = np.load(tmp_path / "vggish.npz")
    assert {"times", "offset"}.isdisjoint(arrays)
    expected = [frames_of(clip_id).max(axis=0) for clip_id in arrays["clip_id"]]
    np.testing.assert_array_equal(arrays["values"], expected)


def test_one_shard_alone_has_no_labels_outside_of_a_working_folder(tmp_path: Path) -> None:
    write_native(tmp_path / "00000.h5", "ab")
    (feature,) = read_features(tmp_path / "00000.h5")
    assert feature.classes is None
    assert [each.clip_id for each in feature.clips] == ["a", "b"]
    assert run(tmp_path, "--format", "csv", "--pool", "mean", "-o", tmp_path).exit_code == 0
    assert list(pd.read_csv(tmp_path / "vggish.csv")) == ["clip_id", "vggish_0", "vggish_1"]


def test_what_cannot_be_exported_is_named(folder: DatasetDir, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found both; .*aligned/all, .*native/vggish"):
        read_features(folder.path)
    with pytest.raises(FeatregError, match="openl3 not found, only vggish"):
        read_features(folder.native("vggish"), ["openl3"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeatregError, match="no shards"):
        read_features(tmp_path / "empty")
    damaged = folder.native("vggish") / "00001.h5"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    done = run(folder.native("vggish"), "--format", "csv", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "00001.h5" in done.output
    assert not (tmp_path / "out").exists()


def test_parquet_without_pyarrow_names_the_extra(
    folder: DatasetDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = run(folder.native("vggish"), "--format", "parquet", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "[parquet]" in done.output
