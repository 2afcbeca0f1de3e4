"""Reading past HDF5: what HDF5 gives, from every layout that a shard may have, or an error."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.reader import ShardRows, fletcher32, lzf_decompress

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((1000, 24)).astype(np.float32)
REPEATED = np.repeat(NOISE[:100], 10, axis=0)
LAYOUTS = {
    "as featreg writes": {"fletcher32": True, "compression": "lzf"},
    "without compression": {"fletcher32": True},
    "without anything": {},
    "gzip": {"fletcher32": True, "compression": "gzip", "shuffle": True},
}


def written(folder: Path, values: np.ndarray, **options: object) -> Path:
    path = folder / "shard.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        chunks = (37, *values.shape[1:])
        maxshape = (None, *values.shape[1:])
        file.create_dataset("x", data=values, chunks=chunks, maxshape=maxshape, **options)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "values",
    [NOISE, REPEATED, np.zeros((300, 24), np.float32), RNG.integers(-9, 9, 5000).astype(np.int16)],
    ids=["noise", "repeated", "zeros", "int16"],
)
def test_any_rows_are_those_that_were_written(
    tmp_path: Path, layout: str, values: np.ndarray
) -> None:
    rows = ShardRows(written(tmp_path, values, **LAYOUTS[layout]), ["x"])
    np.testing.assert_array_equal(rows.whole("x"), values)
    for start, stop in [(0, 1), (36, 38), (37, 74), (0, len(values)), (5, 5), (90, 290)]:
        out = np.empty((stop - start, *values.shape[1:]), np.float32)
        rows.read("x", start, stop, out)
        np.testing.assert_array_equal(out, values[start:stop])


@pytest.mark.parametrize("values", [NOISE, REPEATED], ids=["noise", "repeated"])
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path, values: np.ndarray) -> None:
    path = written(tmp_path, values, fletcher32=True, compression="lzf")
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info(3)
    content = path.read_bytes()
    for _ in range(50):
        at = chunk.byte_offset + int(RNG.integers(chunk.size))
        broken = bytearray(content)
        broken[at] ^= 1 << int(RNG.integers(8))
        path.write_bytes(broken)
        rows = ShardRows(path, ["x"])
        rows.read("x", 0, 100, np.empty((100, 24), np.float32))  # the chunks before are whole
        with pytest.raises(FeatregError, match=r"shard\.h5: 'x' is damaged at row 111"):
            rows.whole("x")


def test_a_file_cut_short_meanwhile_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, NOISE, fletcher32=True)
    rows = ShardRows(path, ["x"])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(FeatregError, match=r"shard\.h5: 'x' is damaged"):
        rows.whole("x")


@pytest.mark.parametrize("name", ["gone.h5", "text.h5"])
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FeatregError, match=f"{name}: cannot be read any more"):
        ShardRows(tmp_path / name, ["x"])


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match=r"shard\.h5.*y"):
        ShardRows(written(tmp_path, NOISE), ["y"])


def plain_fletcher32(content: bytes) -> int:
    """Word by word, as HDF5's format specification has it, with 0 written as 65535."""
    padded = content + b"\0" * (len(content) % 2)
    first = second = 0
    for k in range(0, len(padded), 2):
        first += padded[k] << 8 | padded[k + 1]
        second += first
    first, second = (total % 65535 or 65535 * (total > 0) for total in (first, second))
    return second << 16 | first


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=2000))
def test_fletcher32_is_the_plain_loop(content: bytes) -> None:
    assert fletcher32(np.frombuffer(content, np.uint8)) == plain_fletcher32(content)


@pytest.mark.parametrize("value", [0, 255])
def test_fletcher32_does_not_overflow(value: int) -> None:
    content = bytes([value]) * 100_001
    assert fletcher32(np.frombuffer(content, np.uint8)) == plain_fletcher32(content)


def test_lzf_by_hand() -> None:
    """ "ab" as it is, then 7 bytes from 2 back, then 300 from 1 back."""
    packed = np.array([1, 97, 98, 5 << 5, 1, 7 << 5, 291, 0], np.int64).clip(0, 255)
    packed[6] = 255
    out = np.zeros(300, np.uint8)
    expected = (b"ab" + b"abababa" + b"a" * 264).ljust(300, b"\0")
    assert lzf_decompress(packed.astype(np.uint8), out) == 273
    assert out.tobytes() == expected


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=60), st.integers(0, 80))
def test_lzf_of_anything_ends_within_its_room(packed: bytes, room: int) -> None:
    out = np.full(room + 16, 7, np.uint8)
    written = lzf_decompress(np.frombuffer(packed, np.uint8), out[:room])
    assert -1 <= written <= room
    assert (out[room:] == 7).all()
