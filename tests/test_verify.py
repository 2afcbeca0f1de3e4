"""A whole shard passes; a flipped bit, wherever it is, does not."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from kit import make_clip, make_dataset
from test_shards import HEADER, rows

from featreg.datasets.aligned import AlignedHeader, aligned_writer
from featreg.datasets.native import native_writer
from featreg.datasets.shards import content_sha256
from featreg.datasets.workdir import DatasetDir
from featreg.extract.cluster import Workers
from featreg.extract.combine import align_shard, plan_alignment
from featreg.extract.features import FeatureSpec
from featreg.extract.plan import Request, make_plan
from featreg.extract.run import run_extraction
from featreg.extract.verify import faults
from featreg.extract.waveform import WaveformConfig


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with native and aligned shards; audio stands in for a feature as well."""
    work = tmp_path_factory.mktemp("work")
    dataset = make_dataset(work / "source", {"train": 3})
    folder = DatasetDir(work / "tones")
    request = Request((FeatureSpec("audio", WaveformConfig()),))
    run_extraction(dataset, folder, ["audio"], make_plan(dataset, folder, request), Workers(1, 1))
    for job in plan_alignment(folder, ("audio",), 0.1, "area").jobs:
        align_shard(job)
    return work


def chunks(path: Path) -> dict[str, tuple[int, int]]:
    """Place and size of the first stored chunk of every dataset."""
    found = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_num_chunks():
            chunk = item.id.get_chunk_info(0)
            found[name] = (chunk.byte_offset, chunk.size)

    with h5py.File(path) as file:
        file.visititems(add)
    return found


@pytest.mark.parametrize("kind", ["native", "aligned"])
def test_whole_shards_pass_and_any_flipped_bit_is_found(
    work: Path, kind: str, tmp_path: Path
) -> None:
    (path,) = (work / "tones" / kind).rglob("*.h5")
    assert faults(path) == []
    copy = tmp_path / "copy.h5"
    for name, (offset, size) in chunks(path).items():
        data = bytearray(path.read_bytes())
        data[offset + size // 2] ^= 4
        copy.write_bytes(data)
        (fault,) = faults(copy)
        assert name in fault, fault


def test_a_value_changed_with_its_checksum_is_found(work: Path, tmp_path: Path) -> None:
    (path,) = (work / "tones" / "native").rglob("*.h5")
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["frames"][7] = 1234
    (fault,) = faults(copy)
    assert "hash differs" in fault


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    broken = rows(5, 0)
    broken[3, 1] = np.nan
    with native_writer(path, HEADER) as shard:
        shard.append("a", broken, 2.0, "")
    assert faults(path) == [f"{path}: frames is not finite in row 3 and 0 more"]


def test_a_shard_that_contradicts_itself_is_found(tmp_path: Path) -> None:
    header = AlignedHeader(
        "tones",
        "multi-label",
        ("low", "high"),
        0.1,
        "repeat",
        16000,
        {"chroma": {"dim": 3, "columns": [0, 3]}},
    )
    path = tmp_path / "x.h5"
    with aligned_writer(path, header, "") as shard:
        shard.append(make_clip(path), {"chroma": rows(7, 0)}, np.zeros(16000, np.int16), 1.0)
    (fault,) = faults(path)
    assert "one row for every 0.1 s" in fault
    with h5py.File(path, "r+") as file:
        file["label"][0] = [1, 1]
        file["label_mask"][0] = [1, 0]
        file.attrs["content_sha256"] = content_sha256(file)
    assert any("nobody annotated" in fault for fault in faults(path))


def test_what_is_no_shard_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("text")
    assert "cannot be read" in faults(tmp_path / "x.h5")[0]
    h5py.File(tmp_path / "y.h5", "w").close()
    assert "no shard of featreg's" in faults(tmp_path / "y.h5")[0]
