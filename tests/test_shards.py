"""What is written to a shard comes back, and half a shard never has its final name."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from kit import make_clip

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.aligned import AlignedHeader, aligned_writer, read_index
from featreg.datasets.shards.hdf5 import (
    DiskError,
    create_shard,
    read_json,
    read_text,
    write_attributes,
)
from featreg.datasets.shards.native import Failure, NativeHeader, native_shard, native_writer
from featreg.datasets.shards.timing import FrameTiming

HEADER = NativeHeader(
    dataset="tones",
    feature="chroma",
    dim=3,
    dtype="float32",
    scale=1.0,
    offset=0.0,
    timing=FrameTiming(0.5, 1.0, 0.25),
    sample_rate=16000,
    weights_sha256="abc",
    settings={"norm": 2, "tuning": None},
)


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def write_native(path: Path, header: NativeHeader = HEADER) -> None:
    with native_writer(path, header) as shard:
        shard.append("a", rows(4, 0), 2.0, "f-a")
        shard.fail(Failure("broken ü", "decode", "no file", "f-b"))
        shard.append("c", rows(70000, 1), 35000.0, "f-c")


def test_a_native_shard_gives_back_what_it_was_given(tmp_path: Path) -> None:
    write_native(tmp_path / "x.h5")
    with native_shard(tmp_path / "x.h5") as shard:
        assert shard.header == HEADER
        assert shard.clip_ids == ["a", "c"]
        assert shard.durations == {"a": 2.0, "c": 35000.0}
        assert shard.failures == [Failure("broken ü", "decode", "no file", "f-b")]
        assert shard.fingerprints == {"a": "f-a", "broken ü": "f-b", "c": "f-c"}
        np.testing.assert_array_equal(shard.stored("a"), rows(4, 0))
        np.testing.assert_array_equal(shard.stored("c"), rows(70000, 1))


def test_stored_integers_come_back_as_the_values_they_stand_for(tmp_path: Path) -> None:
    header = NativeHeader(
        "tones",
        "vggish",
        3,
        "uint8",
        4 / 255,
        -2.0,
        FrameTiming(0.96, 0.975, 0.4875),
        16000,
        "",
        {},
    )
    with native_writer(tmp_path / "x.h5", header) as shard:
        shard.append("a", np.array([[0, 255, 51]], np.uint8), 1.0, "")
    with native_shard(tmp_path / "x.h5") as shard:
        np.testing.assert_allclose(shard.values("a"), [[-2.0, 2.0, -1.2]], atol=1e-6)
        assert shard.stored("a").dtype == np.uint8


def test_equal_contents_have_equal_hashes_and_one_bit_changes_them(tmp_path: Path) -> None:
    hashes = []
    for name, header in (("x", HEADER), ("y", HEADER)):
        write_native(tmp_path / f"{name}.h5", header)
        with native_shard(tmp_path / f"{name}.h5") as shard:
            hashes.append(shard.content_sha256)
    assert hashes[0] == hashes[1]
    with native_writer(tmp_path / "z.h5", HEADER) as shard:
        shard.append("a", np.nextafter(rows(4, 0), 9), 2.0, "f-a")
    with native_shard(tmp_path / "z.h5") as other:
        assert other.content_sha256 != hashes[0]


def test_every_dataset_is_checksummed_and_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_native(path)
    with h5py.File(path) as file:
        found = []
        file.visititems(
            lambda _, x: found.append(x.fletcher32) if isinstance(x, h5py.Dataset) else None
        )
        assert len(found) == 9
        assert all(found)
        chunk = file["frames"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(data)
    with native_shard(path) as shard, pytest.raises(FeatregError, match=r"x\.h5: damaged"):
        shard.stored("c")


def test_a_writer_that_fails_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_native(path)
    before = path.read_bytes()

    def interrupted() -> None:
        with native_writer(path, HEADER) as shard:
            shard.append("a", rows(9, 5), 2.0, "f-a")
            raise RuntimeError("power is out")

    with pytest.raises(RuntimeError, match="power"):
        interrupted()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]


def test_what_is_no_shard_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    with (
        pytest.raises(FeatregError, match=r"text\.h5: not a readable"),
        native_shard(tmp_path / "text.h5"),
    ):
        pass
    write_native(tmp_path / "native.h5")
    with pytest.raises(FeatregError, match="'featreg-aligned', found 'featreg-native'"):
        read_index(tmp_path / "native.h5")
    with h5py.File(tmp_path / "native.h5", "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(FeatregError, match="version 99"), native_shard(tmp_path / "native.h5"):
        pass


ALIGNED = AlignedHeader(
    dataset="tones",
    task="multi-label",
    classes=("low", "high"),
    resolution_s=0.1,
    mode="repeat",
    audio_rate=16000,
    features={"a": {"dim": 3, "columns": [0, 3]}, "b": {"dim": 2, "columns": [3, 5]}},
    notes=("one clip is missing",),
    audio_settings={"resampler": "soxr_vhq"},
)


def test_an_aligned_shard_gives_back_what_it_was_given(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{name}.wav") for name in "xy"]
    audio = [np.arange(1600, dtype=np.int16), np.arange(3200, dtype=np.int16)]
    with aligned_writer(tmp_path / "s.h5", ALIGNED, "made-of") as shard:
        shard.append(clips[0], {"a": rows(1, 0), "b": rows(1, 1)[:, :2]}, audio[0], 0.1)
        shard.append(clips[1], {"a": rows(2, 2), "b": rows(2, 3)[:, :2]}, audio[1], 0.2)
    index = read_index(tmp_path / "s.h5")
    assert index.header == ALIGNED
    assert index.sources == "made-of"
    assert index.clip_id == ("x", "y")
    assert index.split == ("train", "train")
    np.testing.assert_array_equal(index.fold, [-1, -1])
    np.testing.assert_array_equal(index.label, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(index.label_mask, [[1, 1], [1, 1]])
    np.testing.assert_array_equal(index.offset, [0, 1, 3])
    np.testing.assert_array_equal(index.audio_offset, [0, 1600, 4800])
    np.testing.assert_array_equal(index.duration_s, [0.1, 0.2])
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_array_equal(file["features/a"][1:3], rows(2, 2))
        np.testing.assert_array_equal(file["audio"][1600:4800], audio[1])


def test_shards_of_before_the_resampler_was_kept_are_read(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.wav")
    with aligned_writer(tmp_path / "s.h5", ALIGNED, "") as shard:
        shard.append(clip, {"a": rows(1, 0), "b": rows(1, 1)[:, :2]}, np.zeros(9, np.int16), 0.1)
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        del file.attrs["audio_settings"]
    assert read_index(tmp_path / "s.h5").header == replace(ALIGNED, audio_settings={})


def test_parts_of_any_length_are_the_whole(tmp_path: Path) -> None:
    values, audio = rows(1000, 0), np.arange(16_000, dtype=np.int16)
    for name, steps in (("whole", (1000, 16_000)), ("parts", (7, 999))):
        with aligned_writer(tmp_path / f"{name}.h5", ALIGNED, "") as shard:
            for clip_id in "xy":
                frames = [values[k : k + steps[0]] for k in range(0, 1000, steps[0])]
                features = {"a": frames, "b": [part[:, :2] for part in frames]}
                samples = [audio[k : k + steps[1]] for k in range(0, 16_000, steps[1])]
                shard.append_parts(make_clip(tmp_path / clip_id), features, samples, 100.0)
    one, other = (read_index(tmp_path / f"{name}.h5") for name in ("whole", "parts"))
    assert one.content_sha256 == other.content_sha256
    with h5py.File(tmp_path / "parts.h5") as file:
        np.testing.assert_array_equal(file["features/a"][()], np.concatenate([values, values]))
        np.testing.assert_array_equal(file["audio"][()], np.concatenate([audio, audio]))
    assert {entry.name for entry in tmp_path.iterdir()} == {"whole.h5", "parts.h5"}


@pytest.mark.parametrize("limit", [50_000, 1_000_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(limit: int, tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk: for the spooled audio, or the shard."""
    clip = make_clip(tmp_path / "x.wav")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write() -> None:
        with aligned_writer(tmp_path / "s.h5", ALIGNED, "") as shard:
            values = np.zeros((10_000, 3), np.float32)
            audio = np.zeros(490_000, np.int16)
            shard.append(clip, {"a": values, "b": values[:, :2]}, audio, 1000.0)

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DiskError, match=r"s\.h5.*ulimit"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_frames_of_another_shape_are_never_written(tmp_path: Path) -> None:
    clip, values = make_clip(tmp_path / "x.wav"), rows(1, 0)[:, :2]
    with (
        pytest.raises(ValueError, match=r"\(3,\).*\(1, 2\)"),
        aligned_writer(tmp_path / "s.h5", ALIGNED, "") as shard,
    ):
        shard.append(clip, {"a": values, "b": values}, np.zeros(9, np.int16), 0.1)
    assert not list(tmp_path.iterdir())


def test_features_of_unequal_length_are_never_written(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.wav")
    with (
        pytest.raises(ValueError, match="x: features of unequal length"),
        aligned_writer(tmp_path / "s.h5", ALIGNED, "") as shard,
    ):
        shard.append(clip, {"a": rows(1, 0), "b": rows(2, 1)[:, :2]}, np.zeros(9, np.int16), 0.1)
    assert not list(tmp_path.iterdir())


def test_text_of_attributes_lies_under_checksums_however_long(tmp_path: Path) -> None:
    classes = [f"class {k}: Größe, 長さ" for k in range(10_000)]
    with create_shard(tmp_path / "x.h5") as file:
        write_attributes(file, classes=json.dumps(classes), empty="", version=1)
    # Text of variable length would lie in a heap, which has none.
    assert b"GCOL" not in (tmp_path / "x.h5").read_bytes()
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        assert read_json(file, "classes") == classes
        assert (read_text(file, "empty"), file.attrs["version"]) == ("", 1)
        file.attrs["empty"] = "as older shards have it"
        assert read_text(file, "empty") == "as older shards have it"
        assert read_text(file, "absent", "none") == "none"
        with pytest.raises(KeyError):
            read_text(file, "absent")
