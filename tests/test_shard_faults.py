"""Each way in which a shard can contradict itself, though every checksum is right, is a fault."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from kit import make_clip
from test_shards import HEADER, rows

from featreg.datasets.base import SPLITS, FeatregError
from featreg.datasets.shards.aligned import AlignedHeader, AlignedWriter, aligned_writer
from featreg.datasets.shards.hdf5 import write_attributes
from featreg.datasets.shards.native import NativeWriter, native_shard, native_writer
from featreg.datasets.shards.seal import is_sealed, seal
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.inspection import verify
from featreg.extract.inspection.verify import faults

ALIGNED = AlignedHeader(
    "tones", "multi-label", ("low", "high"), 0.1, "repeat", 1000,
    {"a": {"dim": 3, "columns": [0, 3]}, "b": {"dim": 2, "columns": [3, 5]}},
)  # fmt: skip


def native(path: Path, tamper: Callable[[NativeWriter], object] = lambda shard: None) -> list[str]:
    """Faults of a shard of two clips of 2 and 1.5 s, tampered with before it is sealed."""
    with native_writer(path / "native.h5", HEADER) as shard:
        shard.append("a", rows(4, 0), 2.0, "")
        shard.append("b", rows(3, 1), 1.5, "")
        tamper(shard)
    return faults(path / "native.h5")


def aligned(
    path: Path, tamper: Callable[[AlignedWriter], object] = lambda shard: None, **changes: Any
) -> list[str]:
    """Faults of a shard of two clips of 1 and 0.5 s, tampered with before it is sealed."""
    with aligned_writer(path / "aligned.h5", replace(ALIGNED, **changes), "") as shard:
        for clip_id, seconds in (("a", 1.0), ("b", 0.5)):
            frames = rows(round(10 * seconds), 0)
            audio = np.arange(round(1000 * seconds), dtype=np.int16)
            clip = make_clip(path / clip_id)
            shard.append(clip, {"a": frames, "b": frames[:, :2]}, audio, seconds)
        tamper(shard)
    return faults(path / "aligned.h5")


def test_whole_shards_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native(tmp_path) == aligned(tmp_path) == []
    monkeypatch.setattr(verify, "_BLOCK_BYTES", 24)  # two frames of three values
    assert native(tmp_path) == aligned(tmp_path) == []


def test_a_short_clip_and_every_split_are_no_faults(tmp_path: Path) -> None:
    with native_writer(tmp_path / "native.h5", HEADER) as native_shard:
        native_shard.append("a", rows(1, 0), 0.01, "")
    assert faults(tmp_path / "native.h5") == []
    with aligned_writer(tmp_path / "aligned.h5", ALIGNED, "") as shard:
        for split in SPLITS:
            features = {"a": rows(1, 0), "b": rows(1, 0)[:, :2]}
            clip = make_clip(tmp_path / split, split=split)
            shard.append(clip, features, np.zeros(100, np.int16), 0.1)
    assert faults(tmp_path / "aligned.h5") == []


def test_a_flipped_bit_of_a_chunk_is_one_fault(tmp_path: Path) -> None:
    native(tmp_path)
    path = tmp_path / "native.h5"
    with h5py.File(path) as file:
        chunk = file["frames"].id.get_chunk_info(0)
    contents = bytearray(path.read_bytes())
    contents[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(contents)
    (fault,) = faults(path)
    assert fault.startswith(f"{path}: frames does not match its checksum")


def change(shard: NativeWriter, k: int, **changes: Any) -> None:
    names = ("clip_id", "fingerprint", "duration_s", "frames")
    values = dict(zip(names, shard._clips[k], strict=True)) | changes
    shard._clips[k] = tuple(values.values())  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda shard: change(shard, 1, clip_id="a"), ("twice", "duration_s")),
        (lambda shard: change(shard, 1, frames=2), ("from 0 to 7",)),
        (lambda shard: change(shard, 0, frames=7) or change(shard, 1, frames=0), ("offset",)),
        (lambda shard: change(shard, 0, frames=60), ("offset",)),
        (lambda shard: shard._clips.pop(), ("offset",)),
        (lambda shard: write_attributes(shard._file, dim=4), ("expected 4 dimensions",)),
        (lambda shard: change(shard, 1, duration_s=0.0), ("duration_s",)),
        (lambda shard: change(shard, 1, duration_s=-1.0), ("duration_s",)),
        (lambda shard: change(shard, 1, duration_s=np.nan), ("duration_s",)),
        (lambda shard: change(shard, 1, duration_s=np.inf), ("duration_s",)),
        (lambda shard: change(shard, 1, duration_s=900.0), ("b has 3 frames for 900.00 s",)),
    ],
)
def test_native_shards_agree_with_themselves(
    tmp_path: Path, tamper: Callable[[NativeWriter], object], said: tuple[str, ...]
) -> None:
    found = native(tmp_path, tamper)
    assert len(found) == len(said)
    for fault, words in zip(found, said, strict=True):
        assert fault.startswith(f"{tmp_path / 'native.h5'}: ")
        assert words in fault


def test_entries_of_the_offset_are_counted() -> None:
    for offset in ([0, 4], [0, 2, 3, 4]):
        (fault,) = verify._offset_faults("offset", np.array(offset), 2, 4)
        assert f"{len(offset)} entries, expected 3" in fault
    for offset in ([1, 2, 4], [0, 2, 5], [0, 4, 4], [0, 5, 4]):
        assert len(list(verify._offset_faults("offset", np.array(offset), 2, 4))) == 1
    for offset in ([0, 1, 4], [0, 3, 4]):
        assert not list(verify._offset_faults("offset", np.array(offset), 2, 4))


def relabel(shard: AlignedWriter, **changes: Any) -> None:
    clip, seconds = shard._clips[1]
    shard._clips[1] = replace(clip, **changes), seconds


def lasts(shard: AlignedWriter, seconds: float) -> None:
    shard._clips[1] = shard._clips[1][0], seconds


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda shard: relabel(shard, clip_id="a"), ("twice",)),
        (
            lambda shard: relabel(shard, label=np.array([2, 0], np.uint8)),
            ("label is not", "not annotated"),
        ),
        (lambda shard: relabel(shard, label_mask=np.array([2, 1], np.uint8)), ("label_mask is",)),
        (lambda shard: relabel(shard, label_mask=np.array([0, 1], np.uint8)), ("not annotated",)),
        (lambda shard: relabel(shard, split="dev"), ("['dev']",)),
        (lambda shard: lasts(shard, 0.7), ("one frame per 0.1", "1000 samples")),
        (lambda shard: lasts(shard, 0.502), ("one frame per", "1000 samples")),
        (lambda shard: lasts(shard, 0.498), ("1000 samples",)),
        (lambda shard: lasts(shard, 0.499), ()),
        (lambda shard: write_attributes(shard._file, audio_rate=990), ("990 samples",)),
    ],
)
def test_aligned_shards_agree_with_themselves(
    tmp_path: Path, tamper: Callable[[AlignedWriter], object], said: tuple[str, ...]
) -> None:
    found = aligned(tmp_path, tamper)
    assert len(found) == len(said), found
    for fault, words in zip(found, said, strict=True):
        assert words in fault


def test_offsets_and_columns_of_every_feature_are_checked(tmp_path: Path) -> None:
    def tamper(shard: AlignedWriter) -> None:
        about = '{"a": {"dim": 4, "columns": [0, 3]}, "b": {"dim": 2, "columns": [3, 5]}}'
        write_attributes(shard._file, features=about)
        shard._features["b"].append(rows(1, 0)[:, :2])
        shard._audio.append(np.zeros(1, np.int16))

    columns, offset, more = sorted(aligned(tmp_path, tamper), key=len)
    assert "a: expected 4 dimensions, found 3" in columns
    assert "audio_offset does not increase from 0 to 1501" in more + offset
    assert "offset of b does not increase from 0 to 16" in more + offset


def test_classes_of_labels_are_counted(tmp_path: Path) -> None:
    found = aligned(tmp_path, classes=("low",))
    assert ["label is not 0 or 1" in fault for fault in found] == [True, False]
    assert "label_mask is not" in found[1]
    assert "(2, 1)" in found[0]


def rewrite(path: Path, change: Callable[[h5py.File], object], sealed: bool = True) -> list[str]:
    """Faults of a shard that is changed after it was written."""
    with h5py.File(path, "r+") as file:
        change(file)
    if sealed:
        seal(path)
    return [fault.removeprefix(f"{path}: ") for fault in faults(path)]


def test_content_that_is_changed_by_another_program_is_found(tmp_path: Path) -> None:
    native(tmp_path)
    path = tmp_path / "native.h5"
    contents = path.read_bytes()
    for change in (
        lambda file: file["clip_id"].write_direct(file["clip_id"][()][::-1].copy()),
        lambda file: file["frames"].write_direct(file["frames"][()][::-1].copy()),
        lambda file: write_attributes(file, dataset="noise"),
    ):
        path.write_bytes(contents)
        (fault,) = rewrite(path, change, sealed=False)
        assert "changed since it was written" in fault


def test_datasets_without_checksums_are_named(tmp_path: Path) -> None:
    aligned(tmp_path)

    def bare(file: h5py.File) -> None:
        del file["crc32/audio"]

    assert rewrite(tmp_path / "aligned.h5", bare) == ["audio has no checksums"]


@pytest.mark.parametrize(("bad", "said"), [([5], "frame 5"), ([1, 6], "frame 1 and 1 more")])
def test_values_that_are_not_finite_are_counted(
    tmp_path: Path, bad: list[int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_BLOCK_BYTES", 24)
    values = rows(7, 0)
    values[bad, 1] = (np.nan, np.inf)[: len(bad)]
    with native_writer(tmp_path / "x.h5", HEADER) as shard:
        shard.append("a", values, 3.5, "")
    (fault,) = faults(tmp_path / "x.h5")
    assert f"frames is not finite in {said}" in fault


def test_the_hash_of_all_bytes_is_compared_last(tmp_path: Path) -> None:
    native(tmp_path)
    path = tmp_path / "native.h5"
    assert is_sealed(path)
    with path.open("ab") as file:
        file.write(b"\0")
    assert not is_sealed(path)
    (fault,) = faults(path)
    assert "changed since it was written" in fault
    seal(path)
    assert is_sealed(path)
    content = path.read_bytes()
    digest = hashlib.sha256(content[512:]).hexdigest()
    assert content[:512] == f"featreg shard, sha256 {digest}\n".encode().ljust(512, b"\0")
    path.write_bytes(bytes(len(content)))
    assert not is_sealed(path)


def test_what_is_no_shard_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"")
    assert faults(path)[0].startswith(f"{path}: not a readable HDF5 file")
    h5py.File(path, "w").close()
    assert "expected a shard" in faults(path)[0]


class Rows:
    """A shard that holds one clip of so many frames and seconds."""

    def __init__(self, feature: str, timing: FrameTiming, rate: int) -> None:
        self.header = replace(HEADER, feature=feature, timing=timing, sample_rate=rate)

    def fit(self, seconds: float, *counts: int) -> list[bool]:
        found = []
        for count in counts:
            shard = type("Shard", (), {"header": self.header, "durations": {"a": seconds}})
            found.append(not list(verify._count_faults(shard, np.array([count]))))  # type: ignore[arg-type]
        return found


def test_frames_of_featregs_own_features_leave_less_than_a_hop_unseen() -> None:
    # 1 s windows from 0.25 s on, every 0.5 s: the last of 4 ends at 2.25 s.
    own = Rows("vggish", FrameTiming(0.5, 1.0, 0.25), 1000)
    assert own.fit(2.25, 2, 3, 4, 5, 6) == [False, True, True, True, True]
    assert own.fit(2.25, 7) == [False]  # its window begins at 2.75 s
    assert own.fit(2.75, 3, 4) == [False, True]
    assert own.fit(2.7509, 4) == [True]  # a sample more or less is rounding
    assert own.fit(2.7511, 4) == [False]
    assert own.fit(1.2489, 4) == [False]
    assert own.fit(1.2491, 4) == [True]
    assert own.fit(0.01, 1, 2) == [True, False]
    # At the bounds themselves, which are exact in binary.
    own, sample_s = Rows("vggish", FrameTiming(0.5, 1.0, 0.25), 1024), 1 / 1024
    assert own.fit(2.75 + sample_s, 4) == [False]
    assert own.fit(1.25 - sample_s, 4) == [False]


def test_frames_of_other_features_are_as_many_as_their_hop_makes_about() -> None:
    # 8 s at 0.5 s from 0.25 s on: 15.5, give or take 3 + 1.0 / 0.5 + 1.55 + 1 / 500.
    other = Rows("mine", FrameTiming(0.5, 1.0, 0.25), 1000)
    assert other.fit(8.0, 8, 9, 22, 23) == [False, True, True, False]
    # A sample is 0.002 frames: 22 are above the bound by less than that, then by more.
    for above, fits in ((0.001, True), (0.003, False)):
        assert other.fit(0.25 + 0.5 * (22 - above - 5) / 1.1, 22) == [fits]


def test_the_first_clip_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with native_writer(tmp_path / "x.h5", HEADER) as shard:
        for clip_id, seconds in (("a", 2.0), ("b", 90.0), ("c", 2.0), ("d", 80.0)):
            shard.append(clip_id, rows(4, 0), seconds, "")
    (fault,) = faults(tmp_path / "x.h5")
    assert "b has 4 frames for 90.00 s" in fault
    assert "1 more" in fault


def test_a_seal_that_is_lost_is_named_when_the_content_is_identified(tmp_path: Path) -> None:
    native(tmp_path)
    path = tmp_path / "native.h5"
    path.write_bytes(bytes(512) + path.read_bytes()[512:])
    with native_shard(path) as shard, pytest.raises(FeatregError, match=r"native\.h5: damaged"):
        _ = shard.content_sha256
