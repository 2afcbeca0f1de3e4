"""A whole shard passes; a flipped bit, wherever it is, does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from kit import make_clip, make_dataset
from test_shards import HEADER, rows

from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer
from featreg.datasets.shards.hdf5 import datasets_of
from featreg.datasets.shards.native import Failure, native_writer
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.registry import FeatureSpec
from featreg.extract.extractors.waveform import WaveformConfig
from featreg.extract.inspection.verify import faults
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.plan import Request, make_plan
from featreg.extract.pipeline.run import run_extraction


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with native and aligned shards; audio stands in for a feature as well."""
    work = tmp_path_factory.mktemp("work")
    dataset = make_dataset(work / "source", {"train": 3})
    folder = DatasetDir(work / "tones")
    request = Request((FeatureSpec("audio", WaveformConfig()),))
    run_extraction(dataset, folder, ["audio"], make_plan(dataset, folder, request), Workers(0, 1))
    for job in plan_alignment(folder, ("audio",), 0.1, "area").jobs:
        align_shard(job)
    return work


def held(path: Path) -> dict[str, object]:
    """All that a shard says: attributes, and every dataset byte for byte."""
    with h5py.File(path) as file:
        found: dict[str, object] = {f"/@{key}": value for key, value in file.attrs.items()}
        for name, dataset in datasets_of(file).items():
            found[name] = (dataset.dtype.str, dataset.shape, dataset[()].tobytes())
            found |= {f"{name}@{key}": value for key, value in dataset.attrs.items()}
    return found


def small_native(path: Path) -> Path:
    with native_writer(path, HEADER) as shard:
        shard.append("a", rows(4, 0), 2.0, "f-a")
        shard.fail(Failure("b", "decode", "no file", "f-b"))
        shard.append("c", rows(90, 1), 45.0, "f-c")
    return path


def small_aligned(path: Path) -> Path:
    features = {"chroma": {"dim": 3, "columns": [0, 3]}, "mood": {"dim": 3, "columns": [3, 6]}}
    header = AlignedHeader(
        "tones", "multi-label", ("low", "high"), 0.1, "repeat", 1000, features, ("Tones.",)
    )
    with aligned_writer(path, header, "made-of") as shard:
        for k in range(2):
            values = {"chroma": rows(10, k), "mood": rows(10, k + 9)}
            shard.append(make_clip(path, f"{k}"), values, np.arange(1000, dtype=np.int16), 1.0)
    return path


def extent(dataset: h5py.Dataset) -> tuple[int, int]:
    """First byte of a small dataset in its file, and the number of bytes."""
    if dataset.chunks is None:
        return dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize
    chunk = dataset.id.get_chunk_info(0)
    return chunk.byte_offset, chunk.size


@pytest.mark.parametrize("make", [small_native, small_aligned])
def test_a_flipped_bit_in_any_dataset_is_found_and_the_dataset_named(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "x.h5")
    assert faults(path) == []
    with h5py.File(path) as file:
        places = {name: extent(dataset) for name, dataset in datasets_of(file).items()}
    assert set(places) == {name for name in held(path) if "@" not in name}
    data = path.read_bytes()
    for name, (begin, size) in places.items():
        for bit in np.linspace(0, 8 * size - 1, 12, dtype=int).tolist():
            broken = bytearray(data)
            broken[begin + bit // 8] ^= 1 << bit % 8
            path.write_bytes(broken)
            assert any(name in fault for fault in faults(path)), (name, bit)


def assert_found_wherever_it_is(path: Path, places: Iterable[int]) -> None:
    """Flip a bit in each of these bytes: verify finds it, in gaps that HDF5 leaves too."""
    data = path.read_bytes()
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 1 << place * 5 % 8
        path.write_bytes(broken)
        assert faults(path), place
    path.write_bytes(data)


@pytest.mark.parametrize("make", [small_native, small_aligned])
def test_no_flipped_bit_goes_unnoticed(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.h5")
    size = path.stat().st_size
    assert_found_wherever_it_is(path, range(0, size, size // 100))


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_native, small_aligned])
def test_no_byte_at_all_goes_unnoticed(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.h5")
    assert_found_wherever_it_is(path, range(path.stat().st_size))


def test_bytes_added_or_lost_at_the_end_are_found(tmp_path: Path) -> None:
    path = small_aligned(tmp_path / "x.h5")
    data = path.read_bytes()
    for changed in (data + b"\0", data[:-1]):
        path.write_bytes(changed)
        assert faults(path)


def test_a_block_checksum_that_is_wrong_is_found(tmp_path: Path) -> None:
    path = small_aligned(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        checksums = file["crc32/features/mood"]
        checksums[0] += 1
    (fault,) = faults(path)
    assert "'features/mood'" in fault


def test_a_value_changed_with_its_checksum_is_found(work: Path, tmp_path: Path) -> None:
    (path,) = (work / "tones" / "native").rglob("*.h5")
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["frames"][7] = 1234
    (fault,) = faults(copy)
    assert str(copy) in fault


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    broken = rows(5, 0)
    broken[3, 1] = np.nan
    with native_writer(path, HEADER) as shard:
        shard.append("a", broken, 2.0, "")
    (fault,) = faults(path)
    assert fault.startswith(f"{path}: frames ")
    assert fault.endswith(" 3")


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
    assert "one frame per 0.1 s" in fault
    with h5py.File(path, "r+") as file:
        for name, values in (("label", [1, 1]), ("label_mask", [1, 0])):
            file[name][0] = values
    assert any("not annotated" in fault for fault in faults(path))


def test_what_is_no_shard_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("text")
    assert "not a readable HDF5 file" in faults(tmp_path / "x.h5")[0]
    h5py.File(tmp_path / "y.h5", "w").close()
    assert "expected a shard of featreg" in faults(tmp_path / "y.h5")[0]


def test_the_command_counts_shards_and_names_what_is_broken(tmp_path: Path) -> None:
    copies = [small_native(tmp_path / "a" / "x.h5"), small_aligned(tmp_path / "b" / "y.h5")]
    whole = CliRunner().invoke(prep, ["verify", str(tmp_path), "--workers", "1"])
    assert whole.exit_code == 0, whole.output
    assert "no errors in 2 shards" in whole.output
    with h5py.File(copies[1], "r+") as file:
        file["features/mood"][3, 1] += 1
        file.attrs["notes"] = json.dumps(["Not tones."])
    broken = CliRunner().invoke(prep, ["verify", str(tmp_path), "--workers", "2"])
    assert broken.exit_code == 1
    assert f"{copies[1]}: 'features/mood'" in broken.output
    assert "1 error in 2 shards" in broken.output
    assert str(copies[0]) not in broken.output
