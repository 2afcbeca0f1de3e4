"""The fingerprint of an audio file: equal for a copy, another for every edit that it covers."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from kit import make_clip

from featreg.datasets.audio.decode import fingerprint

BLOCK = 1 << 16


def fingerprint_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return fingerprint(make_clip(path))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5])
def test_it_is_the_hash_of_bounds_both_ends_and_size(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    tail = content[max(BLOCK, size - BLOCK) :]
    expected = hashlib.blake2b(
        b"0.0 None" + content[:BLOCK] + tail + str(size).encode(), digest_size=16
    )
    assert fingerprint_of(tmp_path / "x", content) == expected.hexdigest()


def test_each_end_and_the_size_count(tmp_path: Path) -> None:
    content = bytes(4 * BLOCK)
    found = {fingerprint_of(tmp_path / "x", content)}
    for place in (0, BLOCK - 1, 3 * BLOCK, 4 * BLOCK - 1):
        edited = bytearray(content)
        edited[place] = 1
        found.add(fingerprint_of(tmp_path / "x", bytes(edited)))
    found.add(fingerprint_of(tmp_path / "x", bytes(5 * BLOCK)))
    assert len(found) == 6
    # The middle of a long file is not read.
    edited = bytearray(content)
    edited[2 * BLOCK] = 1
    assert fingerprint_of(tmp_path / "x", bytes(edited)) in found


def test_the_excerpt_counts_and_the_name_does_not(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "x")
    expected = fingerprint_of(tmp_path / "x", b"audio")
    assert fingerprint_of(tmp_path / "copy", b"audio") == expected
    others = {fingerprint(replace(whole, **{name: 0.5})) for name in ("start_s", "duration_s")}
    assert len({*others, expected}) == 3


def test_what_is_no_readable_file_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint(make_clip(tmp_path / "gone")) == ""
    assert fingerprint(make_clip(tmp_path)) == ""
    os.mkfifo(tmp_path / "pipe")
    assert fingerprint(make_clip(tmp_path / "pipe")) == ""  # and does not wait for its writer

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(self)

    (tmp_path / "x").write_bytes(b"audio")
    monkeypatch.setattr(Path, "open", refuse)
    assert fingerprint(make_clip(tmp_path / "x")) == ""
