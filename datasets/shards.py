"""How streams lie in HDF5: what both layouts share.

``native.py`` holds one stream on its own clock, ``aligned.py`` everything that the
trainer needs on one clock. A shard is written by one process under a temporary name,
flushed, synced and renamed, so that under its final name a shard is always complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from .base import FeatregError

VERSION = 1

# A 5 s crop of 16 kHz audio, or of 0.1 s rows of 512 values, then touches about three chunks.
CHUNK_BYTES = 65536

Array = npt.NDArray[Any]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` if the block succeeds.

    The file is synced to disk before it is renamed, and its folder after, so that
    neither a killed process nor a lost power supply leaves half a file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def dataset_options(dtype: npt.DTypeLike, row_shape: Sequence[int] = ()) -> dict[str, Any]:
    """Options of ``create_dataset`` for rows of `row_shape`: small chunks, a checksum, LZF.

    LZF comes with every h5py; shuffling the bytes of each value first roughly halves
    what repeated rows take.
    """
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(row_shape, dtype=int))
    return {
        "dtype": dtype,
        "chunks": (max(1, CHUNK_BYTES // row_bytes), *row_shape),
        "fletcher32": True,
        "shuffle": True,
        "compression": "lzf",
    }


def write_array(group: h5py.Group, name: str, values: Array) -> None:
    """Store a whole array, checksummed and compressed."""
    options = dataset_options(values.dtype, values.shape[1:])
    if len(values):
        options["chunks"] = (min(len(values), options["chunks"][0]), *values.shape[1:])
    group.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), **options)


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Store strings as fixed-length utf-8, which a checksum covers (variable-length is not)."""
    encoded = [value.encode() for value in values]
    width = max(map(len, encoded), default=1) or 1
    group.create_dataset(
        name,
        data=np.array(encoded, dtype=h5py.string_dtype("utf-8", width)),
        maxshape=(None,),
        chunks=(max(1, len(encoded)),),
        fletcher32=True,
        compression="lzf",
    )


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """The strings that `write_strings` stored."""
    return [value.decode() for value in group[name][()].tolist()]


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

    def flush(self) -> None:
        """Write what still waits."""
        if self._waiting_rows:
            self._write(self._waiting_rows)

    def _write(self, rows: int) -> None:
        values = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        start = len(self.dataset)
        self.dataset.resize(start + rows, axis=0)
        self.dataset[start:] = values[:rows]
        self._waiting = [values[rows:]]
        self._waiting_rows -= rows


def content_sha256(root: h5py.Group) -> str:
    """Hash of every dataset's name, type, shape and values, in the order of their names."""
    digest = hashlib.sha256()

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name} {item.dtype.str} {item.shape}".encode())
            rows = max(1, (1 << 24) // max(1, item.nbytes // max(1, len(item))))
            for start in range(0, len(item), rows):
                digest.update(np.ascontiguousarray(item[start : start + rows]).tobytes())

    root.visititems(add)
    return digest.hexdigest()


@contextmanager
def open_shard(path: Path, layout: str) -> Iterator[h5py.File]:
    """The file at `path`, known to be a shard of `layout`.

    Raises
    ------
    FeatregError
        If the file cannot be read, or is of another layout or version.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FeatregError(
            f"{path}: not a readable HDF5 file ({error}); delete it and run again"
        ) from None
    with file:
        found = (file.attrs.get("format"), file.attrs.get("version"))
        if found != (layout, VERSION):
            raise FeatregError(
                f"{path}: expected a {layout!r} shard of version {VERSION}, found {found[0]!r} of "
                f"version {found[1]}; write it again with this featreg, or read it with the one "
                f"that wrote it ({file.attrs.get('featreg_version', 'unknown')})"
            )
        yield file


def read_json(root: h5py.Group, name: str) -> Any:
    """A root attribute stored as JSON."""
    return json.loads(root.attrs[name])
