"""Multithreaded reading of frames directly from the file of an aligned shard.

HDF5 allows one thread to read at a time. `ShardReader` uses HDF5 once, to find where each
contiguous dataset begins (a finished shard never changes), and then reads the file itself. When a
process reads a block of bytes for the first time, it compares the block with its checksum.

The file is read by ``os.preadv``, not mapped into memory: where a mapped file has been
truncated or its disk fails, the kernel ends the process (SIGBUS) instead of raising an error.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import FeatregError
from .aligned import FORMAT, read_index
from .contiguous import BLOCK_BYTES, Contiguous
from .hdf5 import open_shard

Array = npt.NDArray[Any]

OPEN_FILES = 256
"""Number of files that a process keeps open for reading; the usual limit is 1,024."""

_AGAIN = "delete the file and run `prep align` again (`prep verify` finds other damaged files)"


class ShardReader:
    """Reads frames of one aligned shard, in any thread and in processes forked later.

    Pickled readers contain no open file; a process keeps at most `OPEN_FILES` files open.

    Parameters
    ----------
    path
        The shard.
    names
        Datasets of the shard that will be read: ``audio``, ``features/NAME``.

    Raises
    ------
    FeatregError
        If the file cannot be read, or has no such dataset.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        with open_shard(path, FORMAT) as file:
            self._written_ns = os.fstat(file.id.get_vfd_handle()).st_mtime_ns
            self._datasets = {name: Contiguous.of(file, name) for name in names}

    def read(self, name: str, start: int, out: Array) -> None:
        """Copy ``len(out)`` frames of the dataset `name`, from frame `start` on, into `out`.

        Raises
        ------
        FeatregError
            If the frames are damaged.
        IndexError
            If the dataset has too few frames.
        """
        dataset = self._datasets[name]
        if not 0 <= start <= start + len(out) <= dataset.shape[0]:
            raise IndexError(f"{name} has {dataset.shape[0]} frames, not {start + len(out)}")
        begin, end = start * dataset.frame_bytes, (start + len(out)) * dataset.frame_bytes
        first, last = begin // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        if dataset.verified[first:last].all():
            content = self._bytes(dataset.begin + begin, end - begin)
        else:
            skipped = begin - first * BLOCK_BYTES
            content = self._blocks(name, first, last)[skipped : skipped + end - begin]
        out[...] = content.view(dataset.dtype).reshape(len(out), *dataset.shape[1:])

    def verify(self) -> None:
        """Compare every block of the datasets with its checksum; raises as `read` does."""
        for name, dataset in self._datasets.items():
            for block in range(len(dataset.checksums)):
                self._blocks(name, block, block + 1)

    def _blocks(self, name: str, first: int, last: int) -> Array:
        """Bytes of blocks `first` to `last` - 1, after comparison with their checksums."""
        dataset = self._datasets[name]
        begin, end = first * BLOCK_BYTES, min(last * BLOCK_BYTES, dataset.bytes)
        content = self._bytes(dataset.begin + begin, end - begin)
        if (bad := dataset.damaged(content, first)) is not None:
            raise FeatregError(
                f"{self.path}: {name!r} is damaged at {self._clips(name, bad)}: block {bad} does "
                f"not match its checksum; {_AGAIN}"
            )
        dataset.verified[first:last] = True
        return content

    def _bytes(self, begin: int, size: int) -> Array:
        content, done = np.empty(size, np.uint8), 0
        try:
            file = _open(self.path, self._written_ns)
            while done < size:  # one call reads at most 2 GiB
                count = os.preadv(file.descriptor, [content[done:].data], begin + done)
                if not count:
                    raise FeatregError(f"{self.path}: the file is truncated; {_AGAIN}")
                done += count
        except OSError as error:
            raise FeatregError(f"{self.path}: cannot be read any more ({error})") from None
        return content

    def _clips(self, name: str, block: int) -> str:
        """The clips whose data are in a block, in words."""
        index, frame_bytes = read_index(self.path), self._datasets[name].frame_bytes
        offset = index.audio_offset if name == "audio" else index.offset
        ends = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES - 1]
        first, last = np.searchsorted(offset[:-1] * frame_bytes, ends, side="right") - 1
        names = index.clip_id[first], index.clip_id[last]
        return f"clip {names[0]}" if first == last else f"clips {names[0]} to {names[1]}"


class _File:
    """An open file, closed when no thread refers to it any more."""

    def __init__(self, path: Path, written_ns: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        if os.fstat(self.descriptor).st_mtime_ns != written_ns:
            raise FeatregError(f"{path}: the file was replaced while in use; run the command again")


_open = lru_cache(OPEN_FILES)(_File)
