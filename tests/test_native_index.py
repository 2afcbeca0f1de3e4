"""Which clips the native shards of a feature hold, whatever shard each is in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_shards import HEADER

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.native import Failure, native_writer
from featreg.datasets.shards.native_index import (
    by_number,
    read_native_index,
    shard_name,
    shard_paths,
)


def test_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert [shard_name(number) for number in (0, 12, 100_000)] == [
        "00000.h5",
        "00012.h5",
        "100000.h5",
    ]
    for number in (100_000, 99_999, 2):
        (tmp_path / shard_name(number)).touch()
    (tmp_path / "notes.txt").touch()
    assert [path.stem for path in shard_paths(tmp_path)] == ["00002", "99999", "100000"]
    assert by_number(Path("a/00003.h5")) < by_number(Path("b/00010.h5"))


def write_shard(path: Path, fingerprints: Mapping[str, str], gain: float = 1.0) -> None:
    header = replace(HEADER, settings={"gain": gain})
    with native_writer(path, header) as shard:
        for clip_id, made_from in fingerprints.items():
            if clip_id == "bad":
                shard.fail(Failure("bad", "decode", "no audio", made_from))
            else:
                shard.append(clip_id, np.zeros((1, 3), np.float32), 2.5, made_from)


def test_of_several_shards_that_hold_a_clip_the_last_counts(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.h5", {"a": "1", "b": "1"})
    write_shard(tmp_path / "00001.h5", {"a": "2", "bad": "2"})
    write_shard(tmp_path / "100000.h5", {"a": "3"}, gain=3.0)
    (tmp_path / "00002.h5").write_bytes(b"")
    index = read_native_index(tmp_path)
    assert [path.stem for path in index.shards] == ["00000", "00001", "100000"]
    assert list(index.damaged) == [tmp_path / "00002.h5"]
    assert str(tmp_path / "00002.h5") in index.damaged[tmp_path / "00002.h5"]
    held = index.clips()
    assert {key: each.fingerprint for key, each in held.items()} == {"a": "3", "b": "1", "bad": "2"}
    assert held["b"].path == tmp_path / "00000.h5"
    assert (held["b"].duration_s, held["bad"].duration_s) == (2.5, 0.0)
    assert held["b"].failure is None
    assert held["bad"].failure == Failure("bad", "decode", "no audio", "2")
    alike = index.clips(lambda header: header.settings["gain"] == 1.0)
    assert alike["a"].fingerprint == "2"
    bytes_after_the_seal = (tmp_path / "00000.h5").read_bytes()[512:]
    expected = hashlib.sha256(bytes_after_the_seal).hexdigest()
    assert index.shards[tmp_path / "00000.h5"].content_sha256 == expected


def test_a_shard_whose_name_is_no_number_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.h5", {"a": "1"})
    write_shard(tmp_path / "copy of 00000.h5", {"a": "1"})
    with pytest.raises(FeatregError, match="copy of 00000"):
        read_native_index(tmp_path)
