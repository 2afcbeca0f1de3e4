"""Crops and chunks: the same time in audio and frames, the same numbers everywhere."""

from __future__ import annotations

import dataclasses
import pickle
import resource
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric import Fabric
from synthetic import RATE, header, write_shard, write_toy
from toy_runs import CONREG, RECIPE

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards import reader as shard_reader
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.data.clip_reader import ClipReader
from featreg.train.data.crops import (
    Batch,
    Chunks,
    Crops,
    Cutter,
    EpochOrder,
    Scaling,
    crop_loader,
)
from featreg.train.training.run import _Run
from featreg.train.training.run_dir import RunDir


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> AlignedSet:
    return AlignedSet(write_toy(tmp_path_factory.mktemp("work")))


def lengths(folder: Path, *durations_s: float) -> AlignedSet:
    write_shard(folder / "train-00000.h5", "train", durations_s, header())
    return AlignedSet(folder)


def cutter(aligned: AlignedSet, samples: int = RATE, scaling: Scaling | None = None) -> Cutter:
    return Cutter(aligned, aligned.split("train"), ("tones",), samples, scaling)


def keep_open(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound the number of open files, all of them closed at first."""
    monkeypatch.setattr(shard_reader, "_open", lru_cache(files)(shard_reader._File))


def crop(crops: Crops, epoch: int, clip: int) -> Batch:
    return Batch(*(part[0] for part in crops.batch([(epoch, clip)])))


def audio_of(aligned: AlignedSet, clip: int) -> np.ndarray:
    return ClipReader(aligned.split("train"), {}).audio(clip, 0, 10**9)


def test_a_crop_covers_the_same_time_in_audio_and_frames(toy: AlignedSet) -> None:
    crops = Crops(cutter(toy), seed=0)
    starts = set()
    for clip in range(16):
        batch = crop(crops, 5, clip)
        frame = int(batch.features[0, 0])  # the first column says which frame it is
        starts.add(frame)
        assert batch.features[:, 0].tolist() == list(range(frame, frame + 10))
        np.testing.assert_array_equal(
            batch.audio, audio_of(toy, clip)[frame * 1600 : frame * 1600 + RATE]
        )
    assert len(starts) > 5
    assert min(starts) >= 0
    assert max(starts) <= 20


def test_a_crop_depends_only_on_seed_epoch_and_clip(toy: AlignedSet) -> None:
    once, again = Crops(cutter(toy), seed=1), Crops(cutter(toy), seed=1)
    assert torch.equal(crop(once, 3, 7).audio, crop(again, 3, 7).audio)
    frames = {int(crop(once, epoch, 7).features[0, 0]) for epoch in range(20)}
    assert len(frames) > 5


@pytest.mark.parametrize("open_files", [1, 256])
def test_threads_give_the_same_batches(
    toy: AlignedSet, open_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_open(open_files, monkeypatch)  # a thread may still read what another closes
    crops = Crops(cutter(toy), seed=0)
    order = EpochOrder(16, 2, seed=0, rank=0, world=1)
    alone, loader = crop_loader(crops, order, threads=0), crop_loader(crops, order, threads=4)
    assert len(list(loader)) == 8
    for epoch in range(20):
        order.epoch = epoch
        for mine, theirs in zip(alone, loader, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_an_error_in_a_reading_thread_is_raised(
    toy: AlignedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = Crops(cutter(toy), seed=0)
    monkeypatch.setattr(crops, "batch", lambda keys, pin: crops._cutter.missing)
    with pytest.raises(AttributeError, match="missing"):
        list(crop_loader(crops, EpochOrder(16, 2, seed=0, rank=0, world=1), threads=2))


def test_a_feature_named_twice_is_refused(toy: AlignedSet) -> None:
    with pytest.raises(UsageError, match=r"--features tones\+tones"):
        toy.features(["tones", "tones"])


def test_a_clip_with_more_frames_than_audio_is_repeated_by_frames(tmp_path: Path) -> None:
    """44,101 samples at 44.1 kHz are 16,000 here, which ten frames cover, but eleven frames."""
    aligned = lengths(tmp_path, 1.05)
    clips = aligned.split("train")
    clips = dataclasses.replace(clips, audio=clips.audio - np.array([0, 800]))
    batch = crop(Crops(Cutter(aligned, clips, ("tones",), 3 * RATE), seed=0), 0, 0)
    assert batch.features[:, 0].tolist() == [*range(11), *range(11), *range(8)]
    period = np.pad(audio_of(aligned, 0)[:RATE], (0, 1600))
    np.testing.assert_array_equal(batch.audio, np.resize(period, 3 * RATE))


def test_memory_stays_flat_over_20000_reads(
    toy: AlignedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_open(1, monkeypatch)  # which closes and opens files as well
    reader = ClipReader(toy.split("train"), {"tones": 4, "noise": 3})

    def read(times: int) -> int:
        for k in range(times):
            reader.audio(k // 50 % 16, 0, RATE)
            reader.frames(k // 50 % 16, 0, 10)
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    settled = read(2_000)
    # 1 MiB: 55 bytes a read; a handle or an array kept by each would take far more.
    assert read(18_000) - settled < 1 << 20


def test_open_shards_are_not_pickled(toy: AlignedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = Crops(cutter(toy), seed=0)
    expected = crop(crops, 0, 3)
    assert torch.equal(crop(pickle.loads(pickle.dumps(crops)), 0, 3).audio, expected.audio)


def test_a_short_clip_is_repeated_audio_and_frames_alike(tmp_path: Path) -> None:
    aligned = lengths(tmp_path, 0.45)  # 5 frames, the last one half audio
    batch = crop(Crops(cutter(aligned, 2 * RATE), seed=0), 0, 0)
    assert batch.features[:, 0].tolist() == [0, 1, 2, 3, 4] * 4
    period = np.pad(audio_of(aligned, 0), (0, 800))
    np.testing.assert_array_equal(batch.audio, np.tile(period, 4))


def test_a_long_clip_is_never_padded(tmp_path: Path) -> None:
    aligned = lengths(tmp_path, 1.05)  # 11 frames, but only the first start leaves 1 s of audio
    crops = Crops(cutter(aligned), seed=0)
    for epoch in range(10):
        np.testing.assert_array_equal(crop(crops, epoch, 0).audio, audio_of(aligned, 0)[:RATE])


@given(st.integers(1, 70_000), st.integers(2, 9))
def test_chunks_reach_from_start_to_end(extra: int, count: int) -> None:
    starts = Chunks(_Lengths(RATE + extra), count).starts(0)  # type: ignore[arg-type]
    assert starts[0] == 0
    assert starts[-1] == extra
    assert all(start % 1600 == 0 for start in starts[:-1])
    # Evenly spaced but for rounding down to a frame, by less than a frame on either side.
    assert np.ptp(np.diff(starts)) <= 2 * 1600
    assert starts == sorted(starts)


class _Lengths:
    """A stand-in for a cutter of excerpts of 1 s and a clip of `samples` samples."""

    frame_samples = 1600

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def spare(self, clip: int) -> int:
        return self._samples - RATE


def test_the_last_chunk_ends_where_the_clip_ends(tmp_path: Path) -> None:
    aligned = lengths(tmp_path, 2.63)
    batch = Batch(*(part[0] for part in Chunks(cutter(aligned), 3).batch([0])))
    assert batch.audio.shape == (3, RATE)
    assert batch.features.shape == (3, 10, 4)
    np.testing.assert_array_equal(batch.audio[-1], audio_of(aligned, 0)[-RATE:])
    assert batch.features[-1, :, 0].tolist() == list(range(16, 26))  # from 1.63 s


def test_every_clip_is_in_one_of_the_equal_batches_of_an_epoch() -> None:
    order = EpochOrder(21, 5, seed=0, rank=0, world=1)
    first = list(order)
    assert sorted(clip for batch in first for _, clip in batch) == list(range(21))
    assert {len(batch) for batch in first} == {4, 5}
    order.epoch = 1
    assert list(order) != first


@pytest.mark.parametrize(
    ("clips", "batch_size", "world"), [(3, 2, 1), (2, 16, 1), (17, 16, 1), (9, 2, 2), (13, 3, 3)]
)
def test_no_device_gets_a_single_clip(clips: int, batch_size: int, world: int) -> None:
    """Batch normalization fails on a single clip."""
    orders = [EpochOrder(clips, batch_size, 0, rank, world) for rank in range(world)]
    batches = [batch for order in orders for batch in order]
    assert sorted(clip for batch in batches for _, clip in batch) == list(range(clips))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= batch_size + 1
    assert all(len(list(order)) == len(order) for order in orders)


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(UsageError, match=r"training clips: 3, devices: 2;.*--fraction"):
        EpochOrder(3, 16, 0, 0, 2)


def test_an_interrupted_epoch_is_resumed() -> None:
    order = EpochOrder(20, 6, seed=0, rank=0, world=1)
    whole = list(order)
    order.done = 2
    assert list(order) == whole[2:]


def test_devices_share_each_batch() -> None:
    whole = list(EpochOrder(20, 6, seed=0, rank=0, world=1))
    halves = [list(EpochOrder(20, 3, seed=0, rank=rank, world=2)) for rank in range(2)]
    assert len(whole) == len(halves[0]) == len(halves[1])
    for batch, first, second in zip(whole, *halves, strict=True):
        assert sorted(batch) == sorted(first + second)


def test_a_smaller_fraction_is_a_subset_of_a_larger_one(toy: AlignedSet) -> None:
    clips = toy.split("train")
    small, large = (set(clips.fraction(p, seed=4).clip_id) for p in (0.3, 0.7))
    assert len(small) == 5
    assert len(large) == 11
    assert small < large
    assert small != set(clips.fraction(0.3, seed=5).clip_id)
    assert list(clips.fraction(1, seed=4).clip_id) == list(clips.clip_id)


@pytest.mark.parametrize("p", [0, -0.1, 1.5, float("nan")])
def test_an_impossible_fraction_is_refused(toy: AlignedSet, p: float) -> None:
    with pytest.raises(UsageError, match="--fraction"):
        toy.split("train").fraction(p, seed=0)


def test_labels_and_masks_stay_with_their_clips(toy: AlignedSet) -> None:
    clips = toy.split("train").fraction(0.5, seed=0)
    everything = toy.split("train")
    for k, clip_id in enumerate(clips.clip_id):
        at = list(everything.clip_id).index(clip_id)
        np.testing.assert_array_equal(clips.label[k], everything.label[at])
        np.testing.assert_array_equal(clips.frames[k], everything.frames[at])


def test_features_are_concatenated_in_the_requested_order(toy: AlignedSet) -> None:
    clips = toy.split("train")
    both = ClipReader(clips, {"noise": 3, "tones": 4}).frames(2, 3, 9)
    assert both.shape == (6, 7)
    np.testing.assert_array_equal(both[:, :3], ClipReader(clips, {"noise": 3}).frames(2, 3, 9))
    np.testing.assert_array_equal(both[:, 3:], ClipReader(clips, {"tones": 4}).frames(2, 3, 9))


def test_scaling_makes_mean_zero_and_deviation_one(toy: AlignedSet) -> None:
    clips = toy.split("train")
    scaling = Scaling.of(ClipReader(clips, {"tones": 4}))
    frames = np.concatenate(list(ClipReader(clips, {"tones": 4})))
    # float32 statistics of values up to 30: rounding of 1e-6 relative.
    np.testing.assert_allclose(scaling.mean, frames.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scaling.std, frames.std(axis=0, dtype=np.float64), rtol=1e-6)
    scaled = crop(Crops(cutter(toy, scaling=scaling), seed=0), 0, 0).features.numpy()
    plain = crop(Crops(cutter(toy), seed=0), 0, 0).features.numpy()
    np.testing.assert_allclose(scaled * scaling.std + scaling.mean, plain, atol=1e-5)


def test_scaling_uses_the_training_clips_only(tmp_path: Path) -> None:
    """Frames count up from 0, so that longer clips of other splits would move the mean."""
    write_shard(tmp_path / "train-00000.h5", "train", [1.0] * 4, header())
    write_shard(tmp_path / "valid-00000.h5", "valid", [9.0] * 6, header())
    write_shard(tmp_path / "test-00000.h5", "test", [9.0] * 6, header())
    recipe = dataclasses.replace(RECIPE, feature_norm="standardize")
    config = dataclasses.replace(CONREG, recipe=recipe, fraction=0.5)
    trial = _Run(config, AlignedSet(tmp_path), RunDir(tmp_path), Fabric(), 0, 60.0, False, "")
    scaling = trial._scaling()
    assert scaling is not None
    assert scaling.mean[0] == pytest.approx(4.5)  # frames 0 to 9


def test_a_constant_column_is_not_divided_by_zero(tmp_path: Path) -> None:
    reader = ClipReader(lengths(tmp_path, 0.1).split("train"), {"tones": 4})
    assert Scaling.of(reader).std.tolist() == [1, 1, 1, 1]  # one frame


def test_mixed_shards_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-00000.h5", "train", [1.0], header())
    write_shard(tmp_path / "valid-00000.h5", "valid", [1.0], header(resolution_s=0.5))
    with pytest.raises(FeatregError, match=r"valid-00000.*resolution_s is 0\.5, but 0\.1"):
        AlignedSet(tmp_path)


def test_a_hop_of_a_fraction_of_a_sample_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-00000.h5", "train", [1.0], header(resolution_s=0.33333))
    with pytest.raises(FeatregError, match=r"0\.33333 s is 5333\.28 samples at 16000 Hz"):
        cutter(AlignedSet(tmp_path))


def test_a_crop_of_a_fraction_of_a_frame_is_refused(toy: AlignedSet) -> None:
    with pytest.raises(UsageError, match=r"1\.05 s \(--crop\).* 1 s"):
        cutter(toy, samples=RATE + 800)


def test_an_unknown_feature_is_named(toy: AlignedSet) -> None:
    with pytest.raises(UsageError, match=r"'vggish' .* tones, noise"):
        toy.features(["vggish"])


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="'valid', only in train"):
        lengths(tmp_path, 1.0).split("valid")


def test_an_empty_folder_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="prep align"):
        AlignedSet(tmp_path)
