"""Files as a crash, a full disk, a bad cable or an editor may leave them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

ABSURD = (None, True, -1, 1e300, float("nan"), "text", [], {})
OTHER_TYPES = (b"[]", b"3", b"null", b"{}", b"\x89PNG\r\n\x1a\n\0\xff", b"PK\x05\x06" + bytes(18))


def damaged_versions(name: str, contents: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """What was done to a file, and what it holds then.

    It is empty, truncated (10 times), of another type, has one flipped bit (25 times), and, if
    it is JSON, lacks a key or has an absurd value (each key and value).
    """
    rng = np.random.default_rng([seed, len(contents)])
    yield "empty", b""
    for length in rng.integers(1, len(contents), 10):
        yield f"first {length} bytes", contents[:length]
    for other in OTHER_TYPES:
        yield f"other type {other[:4]!r}", other
    for bit in rng.integers(0, 8 * len(contents), 25):
        yield f"flipped bit {bit % 8} of byte {bit // 8}", flipped(contents, int(bit))
    if name.endswith(".json"):
        values: dict[str, Any] = json.loads(contents)
        for key in values:
            rest = {other: value for other, value in values.items() if other != key}
            yield f"no {key}", json.dumps(rest).encode()
            for value in ABSURD:
                yield f"{key} {value}", json.dumps({**values, key: value}).encode()


def flipped(contents: bytes, bit: int) -> bytes:
    """The contents with one bit changed."""
    changed = bytearray(contents)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
