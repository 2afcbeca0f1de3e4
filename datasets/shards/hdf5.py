"""How streams lie in HDF5: what both layouts share.

``native.py`` holds one stream on its own time grid, ``aligned.py`` everything that the
trainer needs on one time grid. A shard is written by one process under a temporary name,
flushed, synced and renamed, so that under its final name a shard is always complete.

Two kinds of checksum cover every bit: HDF5's own (Fletcher-32 on each chunk, and since
its version 1.10 one on each piece of structure), and SHA-256 of every dataset, kept in
its attribute ``sha256``, with one of the whole content in ``content_sha256``.
"""

from __future__ import annotations

import hashlib
import io
import json
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

# Of HDF5's file formats the first whose structure carries checksums; h5py reads it since 2.8.
_LIBVER = ("v110", "v110")

# A 5 s crop of 16 kHz audio, or of 0.1 s rows of 512 values, then touches about three chunks.
CHUNK_BYTES = 65536

Array = npt.NDArray[Any]


class DamagedError(FeatregError):
    """Bytes of a shard are not those that were written."""


class _ShardFile(io.FileIO):
    """The file that HDF5 writes a shard to.

    HDF5 writes some of its data only when its objects are freed, where an error cannot be
    raised: h5py prints a traceback instead. Therefore the first write that fails is kept in
    `error`, HDF5 does not learn of it, and `create_shard` raises it.
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
    """The shard at `path`, or every shard in that folder and below, by name.

    Raises
    ------
    FeatregError
        If there is none.
    """
    shards = [path] if path.is_file() else sorted(path.rglob("*.h5"))
    if not shards:
        raise FeatregError(f"{path}: no shard (*.h5) here or below")
    return shards


@contextmanager
def create_shard(path: Path) -> Iterator[h5py.File]:
    """A new shard, which appears under `path` complete and sealed if the block succeeds."""
    with atomic_path(path) as temporary:
        with _ShardFile(temporary, "w+") as disk:
            # Without times, equal contents give equal bytes.
            options = {"libver": _LIBVER, "track_times": False, "userblock_size": USER_BLOCK_BYTES}
            try:
                with h5py.File(disk, "w", **options) as file:
                    yield file
                    write_attributes(file, content_sha256=content_sha256(file))
            finally:
                if disk.error is not None:
                    raise disk.error
        seal(temporary)


def dataset_options(dtype: npt.DTypeLike, row_shape: Sequence[int] = ()) -> dict[str, Any]:
    """Options of ``create_dataset`` for rows of `row_shape`: small chunks, a checksum, LZF.

    LZF comes with every h5py, and makes a tenth of rows that were repeated ten times.
    Shuffling the bytes of each value first would save a twentieth of an embedding's rows,
    and reading a crop of them would take five times as long. 16-bit audio is stored as it
    is: of music LZF saves a hundredth, for most of the time of writing.
    """
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(row_shape, dtype=int))
    options: dict[str, Any] = {
        "dtype": dtype,
        "chunks": (max(1, CHUNK_BYTES // row_bytes), *row_shape),
        "fletcher32": True,
    }
    if np.dtype(dtype) != np.int16:
        options["compression"] = "lzf"
    return options


def write_array(group: h5py.Group, name: str, values: Array) -> None:
    """Store a whole array, checksummed and compressed."""
    options = dataset_options(values.dtype, values.shape[1:])
    if len(values):
        options["chunks"] = (min(len(values), options["chunks"][0]), *values.shape[1:])
    dataset = group.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), **options)
    write_attributes(dataset, sha256=hashlib.sha256(np.ascontiguousarray(values).data).hexdigest())


def write_attributes(item: h5py.Group | h5py.Dataset, **values: str | float) -> None:
    """Store attributes, text as fixed-length utf-8.

    Text of variable length lies in a heap without a checksum, where one flipped bit makes
    HDF5 search forever.
    """
    for name, value in values.items():
        if isinstance(value, str):
            encoded = value.encode()
            length = max(1, len(encoded))
            item.attrs.create(name, encoded, dtype=h5py.string_dtype("utf-8", length))
        else:
            item.attrs[name] = value


def read_text(item: h5py.Group | h5py.Dataset, name: str, default: str | None = None) -> str:
    """An attribute that `write_attributes` stored as text.

    Raises
    ------
    KeyError
        If it is not there, and no `default` is given.
    """
    if default is not None and name not in item.attrs:
        return default
    value = item.attrs[name]
    # Text of variable length, as older shards have it, comes as `str`.
    return value.decode() if isinstance(value, bytes) else str(value)


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Store strings as fixed-length utf-8, which a checksum covers (variable-length is not)."""
    # A file name need not be UTF-8; Python holds its other bytes as surrogates.
    encoded = [value.encode(errors="surrogateescape") for value in values]
    width = max(map(len, encoded), default=1) or 1
    data = np.array(encoded, dtype=h5py.string_dtype("utf-8", width))
    dataset = group.create_dataset(
        name,
        data=data,
        maxshape=(None,),
        chunks=(max(1, len(encoded)),),
        fletcher32=True,
        compression="lzf",
    )
    write_attributes(dataset, sha256=hashlib.sha256(data.tobytes()).hexdigest())


@contextmanager
def reading(file: h5py.File) -> Iterator[None]:
    """Turn what h5py raises for damaged bytes into one line that names the file.

    Raises
    ------
    DamagedError
        If the block cannot read what it wants.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DamagedError(
            f"{file.filename}: damaged ({error}); delete this file and run the command that wrote "
            "it again"
        ) from None


def read_array(group: h5py.Group, name: str, rows: slice = slice(None)) -> Array:
    """The values that `write_array` stored, or some rows of them.

    Raises
    ------
    DamagedError
        If they are damaged.
    """
    with reading(group.file):
        return group[name][rows]  # type: ignore[no-any-return]


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """The strings that `write_strings` stored.

    Raises
    ------
    FeatregError
        If they are damaged.
    """
    with reading(group.file):
        values = read_array(group, name).tolist()
        return [value.decode(errors="surrogateescape") for value in values]


class Appender:
    """A dataset that grows by whole chunks; the rows in between wait in memory.

    Writing whole chunks compresses each once, however small the pieces that arrive.
    """

    def __init__(
        self, group: h5py.Group, name: str, dtype: npt.DTypeLike, row_shape: Sequence[int] = ()
    ) -> None:
        self.dataset = group.create_dataset(
            name,
            shape=(0, *row_shape),
            maxshape=(None, *row_shape),
            **dataset_options(dtype, row_shape),
        )
        self.rows = 0
        self._digest = hashlib.sha256()
        self._waiting: list[Array] = []
        self._waiting_rows = 0

    def append(self, values: Array) -> None:
        """Add rows of shape (n, *row_shape)."""
        self._waiting.append(np.asarray(values, dtype=self.dataset.dtype))
        self._waiting_rows += len(values)
        self.rows += len(values)
        whole = self._waiting_rows - self._waiting_rows % self.dataset.chunks[0]
        if whole:
            self._write(whole)

    def close(self) -> None:
        """Write what still waits, and the hash of all."""
        if self._waiting_rows:
            self._write(self._waiting_rows)
        write_attributes(self.dataset, sha256=self._digest.hexdigest())

    def _write(self, rows: int) -> None:
        values = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        start = len(self.dataset)
        self.dataset.resize(start + rows, axis=0)
        written = np.ascontiguousarray(values[:rows])
        self.dataset[start:] = written
        self._digest.update(written.data)
        self._waiting = [values[rows:]]
        self._waiting_rows -= rows


def datasets_of(root: h5py.Group) -> dict[str, h5py.Dataset]:
    """Every dataset in a file, by its path."""
    found: dict[str, h5py.Dataset] = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    root.visititems(add)
    return found


def content_sha256(root: h5py.Group) -> str:
    """Hash of all attributes, and of every dataset's name, type and shape.

    Among a dataset's attributes is the hash of its values.
    """
    digest = hashlib.sha256()
    _add_attributes(digest, root)
    for name, dataset in datasets_of(root).items():
        digest.update(f"{name} {dataset.dtype.str} {dataset.shape}\n".encode())
        _add_attributes(digest, dataset)
    return digest.hexdigest()


def _add_attributes(digest: hashlib._Hash, item: h5py.Group | h5py.Dataset) -> None:
    for name in sorted(item.attrs):
        if name != "content_sha256":
            value = item.attrs[name]
            plain = value.item() if isinstance(value, np.generic) else value
            digest.update(f"{name} {plain!r}\n".encode())


@contextmanager
def open_shard(path: Path, layout: str) -> Iterator[h5py.File]:
    """The file at `path`, known to be a shard of `layout`.

    Raises
    ------
    DamagedError
        If the file cannot be read.
    FeatregError
        If it is of another layout or version.
    """
    try:
        # A shard that has its name is never written to again: no lock, which some mounts refuse.
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
