"""Rows of a dataset straight from its file, by as many threads as want them.

HDF5 lets one thread read at a time, and Python's other threads wait for it. A shard under
its final name never changes, so that where its chunks lie has to be asked only once: what is
left is to read them, to check each against its Fletcher-32, and to undo LZF, none of which
needs Python's lock.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from numba import njit

from ..base import FeatregError

Array = npt.NDArray[Any]

_LZF, _FLETCHER32 = 32000, 3
# What featreg writes with; datasets with other filters are left to HDF5.
_OURS = (_LZF, _FLETCHER32), (_FLETCHER32,)
_CHECKSUM_BYTES = 4
_SUMMED_MODULO = 65535


class ShardRows:
    """Reads rows of the datasets of one shard, in any thread and in processes forked later.

    Parameters
    ----------
    path
        A shard, which nobody writes to any more.
    names
        Its datasets that will be read.

    Raises
    ------
    FeatregError
        If the file cannot be read, or has no such dataset.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self._layouts = {name: _Layout.of(file[name]) for name in names}
            self._descriptor = os.open(path, os.O_RDONLY)
        except (OSError, KeyError) as error:
            raise FeatregError(f"{path}: cannot be read any more ({error})") from None
        # Not before the last thread that reads has let go of it.
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, name: str, start: int, stop: int, out: Array) -> None:
        """Copy rows from `start` to `stop` of `name` into `out`, of as many rows.

        Raises
        ------
        FeatregError
            If they are not what was written.
        """
        layout = self._layouts[name]
        rows = layout.chunk_shape[0]
        for chunk in range(start // rows, -(-stop // rows)):
            first, last = max(start, chunk * rows), min(stop, (chunk + 1) * rows)
            values = self._chunk(name, layout, chunk)
            out[first - start : last - start] = values[first - chunk * rows : last - chunk * rows]

    def whole(self, name: str) -> Array:
        """All rows of `name`."""
        layout = self._layouts[name]
        values = np.empty(layout.shape, layout.dtype)
        self.read(name, 0, len(values), values)
        return values

    def _chunk(self, name: str, layout: _Layout, chunk: int) -> Array:
        """A chunk's rows, in memory that this thread's next call writes over."""
        rows = layout.chunk_shape[0]
        try:
            if layout.filters not in _OURS:
                with h5py.File(self.path, "r", locking=False) as file:
                    return np.asarray(file[name][chunk * rows : (chunk + 1) * rows])
            offset, size, undone = layout.stored[chunk].tolist()
            stored, unpacked = _room(size, layout.chunk_bytes)
            whole = os.preadv(self._descriptor, [stored.data], offset) == size
        except OSError as error:
            raise FeatregError(f"{self.path}: cannot be read any more ({error})") from None
        packed = _LZF in layout.filters and not undone & 1
        if not (whole and size > _CHECKSUM_BYTES and _unpack(stored, unpacked, packed)):
            raise FeatregError(
                f"{self.path}: {name!r} is damaged at row {chunk * rows}: its checksum does not "
                "fit; delete the file, run `prep align` again, and `prep verify` to find others"
            )
        values = unpacked if packed else stored[: layout.chunk_bytes]
        return values.view(layout.dtype).reshape(layout.chunk_shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """How a dataset lies in its file.

    Attributes
    ----------
    shape, chunk_shape, dtype
        Of the dataset, and of one of its chunks, which hold whole rows.
    filters
        What HDF5 did to each chunk, in this order.
    stored
        Shape (chunks, 3), int64: where each begins, the bytes that it takes there, and bits
        that say which of the filters it was spared.
    """

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    filters: tuple[int, ...]
    stored: npt.NDArray[np.int64]

    @property
    def chunk_bytes(self) -> int:
        """Of a chunk's values."""
        return int(np.prod(self.chunk_shape)) * self.dtype.itemsize

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> _Layout:
        plist, rows = dataset.id.get_create_plist(), dataset.chunks[0]
        filters = tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
        stored = np.zeros((-(-len(dataset) // rows), 3), np.int64)

        def add(chunk: Any) -> None:
            stored[chunk.chunk_offset[0] // rows] = (
                chunk.byte_offset,
                chunk.size,
                chunk.filter_mask,
            )

        dataset.id.chunk_iter(add)
        return cls(dataset.shape, dataset.chunks, dataset.dtype, filters, stored)


_thread = threading.local()


def _room(stored: int, unpacked: int) -> tuple[Array, Array]:
    """Room for a chunk as it is stored, and for one as it is; this thread's own."""
    most = max(stored, unpacked)
    if len(getattr(_thread, "room", ((),))[0]) < most:
        _thread.room = np.empty(most, np.uint8), np.empty(most, np.uint8)
    first, second = _thread.room
    return first[:stored], second[:unpacked]


# What numba compiles to 64 bits with a sign; to type checkers, with any numpy, an int.
_wide: Callable[[Any], int] = np.int64  # type: ignore[assignment,unused-ignore]


@njit(nogil=True, cache=True)
def _unpack(stored: Array, unpacked: Array, packed: bool) -> bool:
    """Whether `stored` fits its checksum, and has been unpacked if it was `packed`."""
    content = stored[: len(stored) - _CHECKSUM_BYTES]
    found = 0
    for k in range(_CHECKSUM_BYTES):
        found |= _wide(stored[len(content) + k]) << (8 * k)
    if fletcher32(content) != found:
        return False
    return not packed or lzf_decompress(content, unpacked) == len(unpacked)


@njit(nogil=True, cache=True)
def fletcher32(content: Array) -> int:
    """HDF5's checksum of bytes: that of their big-endian 16-bit words.

    One sum of the words, and one of what that sum is after each of them, both modulo 65535,
    of which 0 stands for nothing but zeros. (J. G. Fletcher, "An arithmetic checksum for
    serial transmissions", IEEE Transactions on Communications 30(1), 1982.)
    """
    words = content[: len(content) // 2 * 2].view(np.uint16)
    total, running = np.uint64(0), np.uint64(0)
    for first in range(0, len(words), _WORDS):
        some = words[first : first + _WORDS]
        count = np.uint32(len(some))
        block, weighted = np.uint32(0), np.uint32(0)
        for k in range(len(some)):
            swapped = np.uint32(some[k] >> 8) | np.uint32(some[k] & 255) << np.uint32(8)
            block += swapped
            weighted += np.uint32(count - np.uint32(k)) * swapped
        running += total * np.uint64(count) + np.uint64(weighted)
        total += np.uint64(block)
    if len(content) % 2:
        total += np.uint64(content[-1]) << np.uint64(8)
        running += total
    return _folded(running) << 16 | _folded(total)


_WORDS = 256  # of which both sums fit into 32 bits


@njit(nogil=True, cache=True)
def _folded(total: np.uint64) -> int:
    rest: int = _wide(total % np.uint64(_SUMMED_MODULO))
    return _SUMMED_MODULO if total and not rest else rest


@njit(nogil=True, cache=True)
def lzf_decompress(packed: Array, unpacked: Array) -> int:
    """Undo LZF; how many bytes of `unpacked` were written, -1 if `packed` is no LZF of so many.

    A byte below 32 says that one more than so many bytes follow as they are. Any other says
    in its upper three bits how many bytes, less two, are repeated (all three set: add the
    next byte), and in the lower five, with the byte after, how far back they are, less one.
    """
    at, end, written, room = 0, len(packed), 0, len(unpacked)
    while at < end:
        control: int = _wide(packed[at])
        at += 1
        if control < 32:
            count = control + 1
            if at + count > end or written + count > room:
                return -1
            for k in range(count):
                unpacked[written + k] = packed[at + k]
            at += count
        else:
            count = (control >> 5) + 2
            if count == 9:
                if at >= end:
                    return -1
                count += _wide(packed[at])
                at += 1
            if at >= end:
                return -1
            back = ((control & 31) << 8 | _wide(packed[at])) + 1
            at += 1
            if back > written or written + count > room:
                return -1
            target = unpacked[written : written + count]
            source = unpacked[written - back : written - back + count]
            for k in range(count):  # from the start: what is repeated may be longer than `back`
                target[k] = source[k]
        written += count
    return written
