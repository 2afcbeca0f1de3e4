"""Contiguous datasets of an aligned shard, with a CRC-32 for each block of their bytes.

A contiguous, uncompressed dataset is one range of bytes in the file, which any thread reads
without HDF5 (`reader.py`). HDF5 keeps no checksum of such a dataset. ``crc32/NAME`` holds
one for every `BLOCK_BYTES` bytes of the dataset ``NAME``; the last block may be shorter.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import h5py
import numpy as np
import numpy.typing as npt

from .hdf5 import reading, write_array, write_attributes

# A 5 s crop of 16 kHz audio, or of 0.1 s frames of 512 values, touches two to four blocks.
BLOCK_BYTES = 65536

# Number of bytes copied at a time from the temporary file to the shard.
_COPY_BYTES = 1 << 22


def checksum_name(name: str) -> str:
    """Name of the dataset that holds the checksums of the dataset `name`."""
    return f"crc32/{name}"


class ContiguousWriter:
    """Writer of one contiguous dataset whose length is known only at the end.

    Parameters
    ----------
    spool
        An empty temporary file, which holds the frames until `close` copies them.
    dtype, frame_shape
        Type of the values, and the shape of one frame: () for audio.

    Attributes
    ----------
    frames
        Number of frames appended so far.
    """

    def __init__(
        self, spool: IO[bytes], dtype: npt.DTypeLike, frame_shape: Sequence[int] = ()
    ) -> None:
        self._spool, self._dtype, self._frame_shape = spool, np.dtype(dtype), tuple(frame_shape)
        self.frames = 0

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add frames of shape (n, *frame_shape)."""
        if values.shape[1:] != self._frame_shape:
            raise ValueError(f"expected frames of shape {self._frame_shape}, got {values.shape}")
        self._spool.write(np.ascontiguousarray(values, self._dtype).data)
        self.frames += len(values)

    def close(self, root: h5py.Group, name: str) -> None:
        """Store the frames as the dataset `name`, with the checksums of its blocks."""
        shape = (self.frames, *self._frame_shape)
        dataset = root.create_dataset(name, shape, self._dtype)
        frame_bytes = self._dtype.itemsize * math.prod(self._frame_shape)
        step = max(1, _COPY_BYTES // frame_bytes)
        self._spool.seek(0)
        for start in range(0, self.frames, step):
            stored = np.frombuffer(self._spool.read(step * frame_bytes), self._dtype)
            dataset[start : start + step] = stored.reshape(-1, *self._frame_shape)
        self._spool.seek(0)
        blocks = iter(partial(self._spool.read, BLOCK_BYTES), b"")
        checksums = [zlib.crc32(block) for block in blocks]
        write_array(root, checksum_name(name), np.array(checksums, np.uint32))
        write_attributes(root[checksum_name(name)], block_bytes=BLOCK_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Contiguous:
    """Location of one contiguous dataset in its file.

    Attributes
    ----------
    shape, dtype
        Shape and type of the dataset.
    begin, bytes
        Position of its first byte in the file, and its number of bytes.
    checksums
        CRC-32 of each block.
    verified
        Whether this process has compared each block with its checksum.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    begin: int
    bytes: int
    checksums: npt.NDArray[np.uint32]
    verified: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, file: h5py.File, name: str) -> Contiguous:
        """The dataset `name` of an open shard.

        Raises
        ------
        FeatregError
            If there is no such dataset, or it is damaged or not contiguous.
        """
        with reading(file):
            dataset, stored = file.get(name), file.get(checksum_name(name))
            begin = None if dataset is None or stored is None else dataset.id.get_offset()
            if begin is None:
                raise ValueError(f"{name} is missing, not contiguous, or has no checksums")
            checksums, size = stored[()], dataset.size * dataset.dtype.itemsize
            if len(checksums) != -(-size // BLOCK_BYTES):
                raise ValueError(f"{name} has {len(checksums)} checksums for {size} bytes")
        verified = np.zeros(len(checksums), np.bool_)
        return cls(dataset.shape, dataset.dtype, begin, size, checksums, verified)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, or of one sample of audio."""
        return self.bytes // self.shape[0]

    def damaged(self, content: npt.NDArray[np.uint8], first: int) -> int | None:
        """Index of the first mismatching block of `content`, which begins with block `first`."""
        for begin in range(0, len(content), BLOCK_BYTES):
            block = first + begin // BLOCK_BYTES
            if zlib.crc32(content[begin : begin + BLOCK_BYTES].data) != self.checksums[block]:
                return block
        return None
