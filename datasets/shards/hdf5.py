"""HDF5 files of both layouts: native shards (`native.py`) and aligned shards (`aligned.py`).

A shard is written by one process under a temporary name, flushed, synced and renamed, so that a
shard with its final name is always complete.

Two kinds of checksums cover every bit: HDF5's own (Fletcher-32 of each HDF5 chunk and, since HDF5
1.10, a checksum of each metadata block), and SHA-256 of all bytes of the file (`seal.py`).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..base import FeatregError
from .atomic_file import DiskError as DiskError
from .atomic_file import atomic_path as atomic_path
from .atomic_file import remove_temporaries as remove_temporaries
from .seal import USER_BLOCK_BYTES, seal

VERSION = 2

# The first version of HDF5's file format with checksums of all metadata; h5py >= 2.8 reads it.
_LIBVER = ("v110", "v110")

# A 5 s crop of 16 kHz audio, or of 0.1 s frames of 512 values, touches about three HDF5 chunks.
CHUNK_BYTES = 65536

Array = npt.NDArray[Any]


class DamagedError(FeatregError):
    """A shard is damaged: its content differs from what was written."""


class _ShardFile(io.FileIO):
    """File object through which HDF5 writes a shard.

    HDF5 writes some of its data only when its objects are freed, where an error cannot be
    raised: h5py prints a traceback instead. Therefore the first failed write is stored in `error`
    instead of being reported to HDF5, and `create_shard` raises it.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of `data`, unless a write has failed."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        """Set the file's size, unless a write has failed."""
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0


def find_shards(path: Path) -> list[Path]:
    """The shard at `path`, or all shards in that folder and its subfolders, sorted by name.

    Raises
    ------
    FeatregError
        If there is none.
    """
    shards = [path] if path.is_file() else sorted(path.rglob("*.h5"))
    if not shards:
        raise FeatregError(f"{path}: no shards (*.h5) found in this folder or its subfolders")
    return shards


@contextmanager
def create_shard(path: Path) -> Iterator[h5py.File]:
    """Create a shard, which appears at `path`, complete and sealed, if the block succeeds."""
    with atomic_path(path) as temporary:
        with _ShardFile(temporary, "w+") as disk:
            # Without timestamps, equal content gives equal bytes.
            options = {"libver": _LIBVER, "track_times": False, "userblock_size": USER_BLOCK_BYTES}
            try:
                with h5py.File(disk, "w", **options) as file:
                    yield file
            finally:
                if disk.error is not None:
                    raise disk.error
        seal(temporary)


def write_array(group: h5py.Group, name: str, values: Array) -> None:
    """Store a whole array, with checksums and compression."""
    if not all(values.shape[1:]):  # labels without classes: there are no HDF5 chunks of 0 bytes
        group.create_dataset(name, data=values)
        return
    appender = Appender(group, name, values.dtype, values.shape[1:], max(1, len(values)))
    appender.append(values)
    appender.close()


def write_attributes(item: h5py.Group | h5py.Dataset, **values: Any) -> None:
    """Store attributes: numbers, text as fixed-length UTF-8, and other values as JSON.

    HDF5 stores text of variable length in a heap without a checksum, where a flipped bit can
    make it search forever.
    """
    for name, value in values.items():
        if isinstance(value, (int, float, np.number)):
            item.attrs[name] = value
        else:
            text = (value if isinstance(value, str) else json.dumps(value)).encode()
            item.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))


def read_text(item: h5py.Group | h5py.Dataset, name: str, default: str | None = None) -> str:
    """A text attribute stored by `write_attributes`.

    Raises
    ------
    KeyError
        If the attribute is missing and there is no `default`.
    """
    if default is not None and name not in item.attrs:
        return default
    value = item.attrs[name]
    # Text of variable length, as in older shards, is read as `str`.
    return value.decode() if isinstance(value, bytes) else str(value)


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Store strings as fixed-length UTF-8, which has a checksum, unlike variable-length text."""
    # File names need not be UTF-8; Python represents other bytes as surrogates.
    encoded = [value.encode(errors="surrogateescape") for value in values]
    width = max(map(len, encoded), default=1) or 1
    write_array(group, name, np.array(encoded, dtype=h5py.string_dtype("utf-8", width)))


@contextmanager
def reading(file: h5py.File) -> Iterator[None]:
    """Convert the errors that h5py raises for damaged files to a `DamagedError`.

    Raises
    ------
    DamagedError
        If the block fails to read from the file.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DamagedError(
            f"{file.filename}: damaged ({error}); delete this file and run the command that wrote "
            "it again"
        ) from None


def read_array(group: h5py.Group, name: str, rows: slice = slice(None)) -> Array:
    """The values that `write_array` stored, or a range of their rows.

    Raises
    ------
    DamagedError
        If the values are damaged.
    """
    with reading(group.file):
        return group[name][rows]  # type: ignore[no-any-return]


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """The strings that `write_strings` stored.

    Raises
    ------
    DamagedError
        If the strings are damaged.
    """
    with reading(group.file):
        values = read_array(group, name).tolist()
        return [value.decode(errors="surrogateescape") for value in values]


class Appender:
    """A growing dataset, written in whole HDF5 chunks; incomplete chunks are kept in memory.

    Each HDF5 chunk is therefore compressed only once, however few rows are appended at a time.
    The compression is zlib's, at level 1. Unlike that of h5py's LZF, its output depends on the
    values only, so that shards with equal contents are equal byte for byte. 16-bit audio is not
    compressed, because compression saves little on music and takes most of the writing time.

    Parameters
    ----------
    group, name
        Where the dataset is created.
    dtype, row_shape
        Type of the values, and shape of a row.
    most_rows
        Number of rows, if it is known; limits the size of the HDF5 chunks.
    """

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        dtype: npt.DTypeLike,
        row_shape: Sequence[int] = (),
        most_rows: int = CHUNK_BYTES,
    ) -> None:
        row_bytes = np.dtype(dtype).itemsize * math.prod(row_shape)
        self.dataset = group.create_dataset(
            name,
            shape=(0, *row_shape),
            dtype=dtype,
            maxshape=(None, *row_shape),
            chunks=(min(most_rows, max(1, CHUNK_BYTES // row_bytes)), *row_shape),
            fletcher32=True,
            compression=None if np.dtype(dtype) == np.int16 else 1,
        )
        self.rows = 0
        self._pending: list[Array] = []
        self._pending_rows = 0

    def append(self, values: Array) -> None:
        """Add rows of shape (n, *row_shape)."""
        self._pending.append(np.asarray(values, dtype=self.dataset.dtype))
        self._pending_rows += len(values)
        self.rows += len(values)
        whole = self._pending_rows - self._pending_rows % self.dataset.chunks[0]
        if whole:
            self._write(whole)

    def close(self) -> None:
        """Write the remaining rows."""
        if self._pending_rows:
            self._write(self._pending_rows)

    def _write(self, rows: int) -> None:
        values = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending)
        start = len(self.dataset)
        self.dataset.resize(start + rows, axis=0)
        self.dataset[start:] = values[:rows]
        self._pending = [values[rows:]]
        self._pending_rows -= rows


def datasets_of(root: h5py.Group) -> dict[str, h5py.Dataset]:
    """All datasets in a file, by path."""
    found: dict[str, h5py.Dataset] = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    root.visititems(add)
    return found


@contextmanager
def open_shard(path: Path, layout: str) -> Iterator[h5py.File]:
    """Open the shard at `path` and check that it has the format `layout`.

    Raises
    ------
    DamagedError
        If the file cannot be read.
    FeatregError
        If the file has another format or version.
    """
    try:
        # A finished shard is never written to, so it needs no lock, which some mounts refuse.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DamagedError(
            f"{path}: not a readable HDF5 file ({error}); delete it and run the command that wrote "
            "it again"
        ) from None
    with file:
        with reading(file):
            found, version = read_text(file, "format", "none"), file.attrs.get("version")
            writer = read_text(file, "featreg_version", "unknown")
        if found != layout:
            raise FeatregError(f"{path}: expected a shard of format {layout!r}, found {found!r}")
        if version != VERSION:
            command = "prep extract" if "native" in layout else "prep align"
            raise FeatregError(
                f"{path}: its format is version {version} (written by featreg {writer}), and this "
                f"featreg reads version {VERSION}; delete the folder {path.parent} and run "
                f"`{command}` again"
            )
        yield file


def read_json(root: h5py.Group, name: str) -> Any:
    """A root attribute stored as JSON."""
    return json.loads(read_text(root, name))
