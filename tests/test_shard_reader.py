"""Reading aligned shards past HDF5: what HDF5 gives, or an error that names what is damaged."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from kit import make_clip
from synthetic import header, write_shard, write_toy

from featreg.datasets.base import FeatregError
from featreg.datasets.shards import reader as shard_reader
from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer
from featreg.datasets.shards.contiguous import BLOCK_BYTES
from featreg.datasets.shards.hdf5 import datasets_of
from featreg.datasets.shards.reader import ShardReader
from featreg.train.cli.train import train
from featreg.train.data.aligned_dataset import AlignedDataset

FEATURES = {"wide": 512, "odd": 7, "one": 1}
DURATIONS_S = [12.3, 0.05, 30.0, 4.0]
NAMES = ["audio", *(f"features/{name}" for name in FEATURES)]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("aligned") / "s.h5"
    write_shard(path, "train", DURATIONS_S, header(dims=FEATURES))
    return path


@pytest.fixture
def copy(shard: Path, tmp_path: Path) -> Path:
    (tmp_path / "s.h5").write_bytes(shard.read_bytes())
    return tmp_path / "s.h5"


def begin_of(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return file[name].id.get_offset()


def flip(path: Path, place: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("name", NAMES)
def test_any_frames_are_those_that_hdf5_gives(shard: Path, name: str) -> None:
    with h5py.File(shard) as file:
        values = file[name][()]
        assert file[name].chunks is None
    rng = np.random.default_rng(0)
    spans = [sorted(rng.integers(0, len(values) + 1, 2).tolist()) for _ in range(40)]
    reader = ShardReader(shard, [name])
    for start, stop in [*spans, (0, len(values)), (5, 5), (len(values) - 1, len(values)), *spans]:
        out = np.empty((stop - start, *values.shape[1:]), values.dtype)
        reader.read(name, start, out)
        np.testing.assert_array_equal(out, values[start:stop])


def test_columns_of_a_wider_array_are_filled(shard: Path) -> None:
    out = np.zeros((30, 9), np.float32)
    ShardReader(shard, ["features/odd"]).read("features/odd", 3, out[:, 1:8])
    with h5py.File(shard) as file:
        np.testing.assert_array_equal(out[:, 1:8], file["features/odd"][3:33])
    assert not out[:, [0, 8]].any()


def test_frames_beyond_the_end_are_refused(shard: Path) -> None:
    reader = ShardReader(shard, ["features/one"])
    with h5py.File(shard) as file:
        frames = len(file["features/one"])
    for start, count in [(frames - 1, 2), (-1, 1), (frames + 1, 0)]:
        with pytest.raises(IndexError):
            reader.read("features/one", start, np.empty((count, 1), np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_checksums_are_zlibs_of_each_block(shard: Path, name: str) -> None:
    with h5py.File(shard) as file:
        content = file[name][()].tobytes()
        expected = [
            zlib.crc32(content[k : k + BLOCK_BYTES]) for k in range(0, len(content), BLOCK_BYTES)
        ]
        assert file[f"crc32/{name}"][()].tolist() == expected
        assert file[f"crc32/{name}"].attrs["block_bytes"] == BLOCK_BYTES
        assert file[f"crc32/{name}"].fletcher32


def test_a_flipped_bit_names_file_dataset_and_clips(copy: Path) -> None:
    """30 s of 0.1 s frames of 512 float32 values: block 5 lies within the third clip."""
    flip(copy, begin_of(copy, "features/wide") + 5 * BLOCK_BYTES + 77, bit=3)
    reader = ShardReader(copy, NAMES)
    reader.read("features/wide", 0, np.empty((5 * 32, 512), np.float32))  # the blocks before
    reader.read("audio", 0, np.empty(1000, np.int16))
    for _ in range(2):  # it is not taken for verified the second time
        with pytest.raises(FeatregError, match=r"s\.h5: 'features/wide' .* clip s-2: block 5"):
            reader.read("features/wide", 5 * 32, np.empty((1, 512), np.float32))
    with pytest.raises(FeatregError, match="prep align"):
        reader.verify()


def test_a_block_of_several_clips_names_the_first_and_the_last(copy: Path) -> None:
    flip(copy, begin_of(copy, "features/one"))
    with pytest.raises(FeatregError, match="clips s-0 to s-3"):
        ShardReader(copy, NAMES).read("features/one", 0, np.empty((1, 1), np.float32))


@pytest.mark.parametrize(
    ("block", "said"), [(6, "clips s-0 to s-2"), (19, "clip s-2"), (20, "clips s-2 to s-3")]
)
def test_clips_are_those_with_bytes_in_the_block(copy: Path, block: int, said: str) -> None:
    """Audio of 32,000 bytes per second: s-2 is from byte 395,200 to 1,355,200."""
    flip(copy, begin_of(copy, "audio") + block * BLOCK_BYTES)
    with pytest.raises(FeatregError, match=rf"'audio' .* {said}: block {block} "):
        ShardReader(copy, ["audio"]).verify()


def test_a_block_is_compared_with_its_checksum_once(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, crc32 = [], zlib.crc32

    def counted(content: memoryview) -> int:
        compared.append(len(content))
        return crc32(content)

    monkeypatch.setattr(zlib, "crc32", counted)
    reader = ShardReader(shard, ["audio"])
    for start in (0, 0, 1000):
        reader.read("audio", start, np.empty(BLOCK_BYTES, np.float32))  # 2 to 3 blocks of int16
    assert compared == [BLOCK_BYTES] * (2 + 3)  # 2, then none, then 3 of which one is new


def test_a_file_cut_short_meanwhile_is_named(copy: Path) -> None:
    reader = ShardReader(copy, ["audio"])
    reader.read("audio", 0, np.empty(100, np.int16))
    os.truncate(copy, begin_of(copy, "audio") + 100)
    with pytest.raises(FeatregError, match=r"s\.h5: .*truncated"):
        reader.read("audio", 0, np.empty(100_000, np.int16))


def test_a_file_replaced_meanwhile_is_not_read_at_the_old_places(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ShardReader(copy, ["audio"])
    write_shard(copy, "train", [1.0], header(dims=FEATURES))
    with pytest.raises(FeatregError, match=r"s\.h5: .*replaced"):
        reader.read("audio", 0, np.empty(100, np.int16))


def test_a_file_that_is_gone_is_named(copy: Path) -> None:
    reader = pickle.loads(pickle.dumps(ShardReader(copy, ["audio"])))
    copy.unlink()
    with pytest.raises(FeatregError, match=r"s\.h5: .*No such file"):
        reader.read("audio", 0, np.empty(100, np.int16))


@pytest.mark.parametrize("name", ["gone.h5", "text.h5"])
def test_a_file_that_is_not_hdf5_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FeatregError, match=name):
        ShardReader(tmp_path / name, ["audio"])


@pytest.mark.parametrize("name", ["features/none", "label"])
def test_a_dataset_that_is_missing_or_not_contiguous_is_named(shard: Path, name: str) -> None:
    with pytest.raises(FeatregError, match=rf"s\.h5.*{name}"):
        ShardReader(shard, [name])


def test_open_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "_open", shard_reader.lru_cache(2)(shard_reader._File))
    readers = []
    for k in range(6):
        write_shard(tmp_path / f"{k}.h5", "train", [0.1], header())
        readers.append(ShardReader(tmp_path / f"{k}.h5", ["audio"]))
    for reader in readers * 2:
        reader.read("audio", 0, np.empty(1600, np.int16))
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{fd}")]  # fmt: skip
    assert sum(path.startswith(str(tmp_path)) for path in held) == 2


def small_shard(path: Path) -> Path:
    features = {"a": {"dim": 2, "columns": [0, 2]}}
    about = AlignedHeader("toy", "multi-label", ("low", "high"), 0.1, "repeat", 1000, features)
    with aligned_writer(path, about, "made-of") as shard:
        for k in range(3):
            values = np.random.default_rng(k).standard_normal((5, 2)).astype(np.float32)
            shard.append(
                make_clip(path, f"{k}"), {"a": values}, np.arange(500, dtype=np.int16), 0.5
            )
    return path


def items(folder: Path) -> list[dict[str, Any]]:
    return list(AlignedDataset(folder, crop_s=0.3, random_crop=False))


def tensors(found: list[dict[str, Any]]) -> list[torch.Tensor]:
    return [item[name] for item in found for name in ("audio", "features", "label", "label_mask")]


def assert_never_read(folder: Path, path: Path, places: Iterable[int]) -> None:
    """Flip a bit in each of these bytes: the items are as before, or one error comes of it."""
    content, before, errors = path.read_bytes(), items(folder), []
    for place in places:
        flip(path, place, bit=place * 5 % 8)
        try:
            found = items(folder)
        except FeatregError as error:
            errors.append(str(error))
        else:
            assert [item["clip_id"] for item in found] == [item["clip_id"] for item in before]
            assert all(map(torch.equal, tensors(found), tensors(before)))
        path.write_bytes(content)
    assert errors
    assert all(str(path) in error and "\n" not in error for error in errors)


def test_no_flipped_bit_reaches_a_training_step(tmp_path: Path) -> None:
    path = small_shard(tmp_path / "s.h5")
    size = path.stat().st_size
    assert_never_read(tmp_path, path, [966, *range(0, size, size // 120)])


@pytest.mark.parametrize("where", ["audio", "features/tones", "signature", "attributes"])
def test_a_run_on_a_damaged_shard_ends_in_one_line(tmp_path: Path, where: str) -> None:
    folder = write_toy(tmp_path, {"train": (6,), "valid": (4,), "test": (4,)})
    path = folder / "train-00000.h5"
    flip(path, {"signature": 513, "attributes": 966}.get(where) or begin_of(path, where) + 1)
    line = ["run", "--reg", "conreg", "--preset", "default", "--width", "4", "--crop", "2.1",
            "--epochs", "1", "--precision", "float32", "--work", str(tmp_path)]  # fmt: skip
    done = CliRunner().invoke(train, line)
    assert done.exit_code == 1
    (error,) = [text for text in done.output.splitlines() if str(path) in text]
    assert "delete" in error
    assert "Traceback" not in done.output
    if where in ("audio", "features/tones"):
        assert f"{where!r}" in error
        assert "clip train-00000-0" in error or "clips train-00000-0" in error


@pytest.mark.slow
def test_no_byte_at_all_that_is_damaged_reaches_a_training_step(tmp_path: Path) -> None:
    path = small_shard(tmp_path / "s.h5")
    assert_never_read(tmp_path, path, range(path.stat().st_size))


def test_every_value_of_the_large_datasets_is_under_a_checksum(shard: Path) -> None:
    with h5py.File(shard) as file:
        bare = {name for name, dataset in datasets_of(file).items() if not dataset.fletcher32}
    assert bare == set(NAMES)
