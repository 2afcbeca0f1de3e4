"""Hash of all bytes of a shard, in the user block of its file.

Shards with equal contents have equal bytes, so that the hash also identifies the content.
HDF5 leaves gaps between its structures that none of its checksums covers. The user block of an
HDF5 file is reserved for the application: here, the 512 bytes before the HDF5 content. Every HDF5
reader skips it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import IO

USER_BLOCK_BYTES = 512


def seal(path: Path) -> None:
    """Write the hash of a finished shard into its user block."""
    with path.open("r+b") as file:
        expected = _user_block(file)
        file.seek(0)
        file.write(expected)


def is_sealed(path: Path) -> bool:
    """Whether all bytes of the shard are unchanged since it was sealed."""
    with path.open("rb") as file:
        return file.read(USER_BLOCK_BYTES) == _user_block(file)


def read_seal(path: Path) -> str:
    """SHA-256 of all bytes when the shard was sealed.

    Raises
    ------
    ValueError
        If the shard is not sealed.
    """
    with path.open("rb") as file:
        found = re.match(rb"featreg shard, sha256 ([0-9a-f]{64})\n", file.read(USER_BLOCK_BYTES))
    if found is None:
        raise ValueError("its first 512 bytes contain no hash of featreg")
    return found[1].decode()


def _user_block(file: IO[bytes]) -> bytes:
    file.seek(USER_BLOCK_BYTES)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return f"featreg shard, sha256 {digest.hexdigest()}\n".encode().ljust(USER_BLOCK_BYTES, b"\0")
