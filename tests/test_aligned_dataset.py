"""AlignedDataset: the items of a torch dataset, the same through any number of workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import RATE, header, write_shard, write_toy
from torch.utils.data import DataLoader

from featreg.datasets.base import FeatregError, UsageError
from featreg.train.data.aligned_dataset import AlignedDataset
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.data.clip_reader import ClipReader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("work"))


def first_frame(item: dict[str, Any]) -> int:
    return int(item["features"][0, 0])  # the first column says which frame it is


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def test_a_whole_clip_is_what_the_shards_hold(folder: Path) -> None:
    data, aligned = AlignedDataset(folder), AlignedSet(folder)
    clips = aligned.clips
    assert len(data) == len(clips) == 16 + 8 + 9
    reader = ClipReader(clips, {"tones": 4, "noise": 3})
    for k in (0, 12, 20, 32):
        item = data[k]
        assert item["clip_id"] == clips.clip_id[k]
        assert item["audio"].shape == (3 * RATE,)
        assert item["audio"].dtype == item["features"].dtype == item["label"].dtype == torch.float32
        assert float(item["audio"].abs().max()) <= 1
        np.testing.assert_array_equal(item["audio"], reader.audio(k, 0, 3 * RATE))
        np.testing.assert_array_equal(item["features"], reader.frames(k, 0, 30))
        np.testing.assert_array_equal(item["label"], clips.label[k])
        np.testing.assert_array_equal(item["label_mask"], clips.label_mask[k])


def test_it_describes_its_items(folder: Path) -> None:
    data = AlignedDataset(folder, split="valid", features=["noise", "tones"])
    assert data.classes == ("low", "middle", "high")
    assert (data.task, data.resolution_s, data.sample_rate) == ("multi-label", 0.1, RATE)
    assert data.features == {"noise": 3, "tones": 4}
    noise, tones = data[0]["features"].split(list(data.features.values()), dim=-1)
    item = AlignedDataset(folder, split="valid")[0]
    assert torch.equal(item["features"], torch.cat([tones, noise], dim=-1))
    assert AlignedDataset(folder, features=())[0]["features"].shape == (30, 0)


def test_an_index_counts_from_either_end_and_ends_where_the_clips_end(folder: Path) -> None:
    data = AlignedDataset(folder, split="test")
    assert same(data[-1], data[8])
    assert same(data[np.int64(2)], data[2])
    for index in (9, -10):
        with pytest.raises(IndexError):
            data[index]
    with pytest.raises(TypeError):
        data[0:2]
    assert len(list(data)) == 9  # the old sequence protocol stops at IndexError


def test_a_folder_above_one_aligned_set_stands_for_it(folder: Path) -> None:
    expected = AlignedDataset(folder)[0]
    assert same(AlignedDataset(str(folder.parents[1]))[0], expected)  # of the dataset
    assert same(AlignedDataset(folder.parents[2])[0], expected)  # the working folder


def test_several_aligned_sets_are_listed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_toy(tmp_path, {"train": (2,)}, aligned=name)
    with pytest.raises(UsageError, match=r"aligned/one, .*aligned/two"):
        AlignedDataset(tmp_path)


def test_a_training_crop_is_random_per_access_and_reproducible(folder: Path) -> None:
    data, again, other = (AlignedDataset(folder, "train", 1.0, seed=seed) for seed in (0, 0, 1))
    starts = [[first_frame(each[3]) for _ in range(20)] for each in (data, again, other)]
    assert len(set(starts[0])) > 5
    assert min(starts[0]) >= 0
    assert max(starts[0]) <= 20
    assert starts[0] == starts[1] != starts[2]
    data.set_epoch(4)
    assert first_frame(data[3]) == starts[0][4]


def test_audio_and_features_of_a_crop_cover_the_same_time(folder: Path) -> None:
    data, whole = AlignedDataset(folder, "train", 1.0), AlignedDataset(folder, "train")
    for k in range(16):
        item, frame = data[k], first_frame(data[k])
        frame = first_frame(item)
        assert torch.equal(item["features"], whole[k]["features"][frame : frame + 10])
        assert torch.equal(item["audio"], whole[k]["audio"][frame * 1600 : frame * 1600 + RATE])


def test_crops_of_other_splits_are_from_the_middle(folder: Path) -> None:
    data = AlignedDataset(folder, "valid", 1.0)
    assert {first_frame(data[k]) for k in range(8) for _ in range(3)} == {10}  # 1 s to 2 s of 3 s
    everything = AlignedDataset(folder, crop_s=1.0, random_crop=False)
    assert {first_frame(item) for item in everything} == {10}
    moving = AlignedDataset(folder, "valid", 1.0, random_crop=True)
    assert len({first_frame(moving[0]) for _ in range(20)}) > 5


def test_a_short_clip_is_repeated_to_the_length_of_the_crop(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", "train", [0.5, 3.0], header())
    batch = next(iter(DataLoader(AlignedDataset(tmp_path, crop_s=2.0), batch_size=2)))
    assert batch["audio"].shape == (2, 2 * RATE)
    assert batch["features"][0, :, 0].tolist() == [0, 1, 2, 3, 4] * 4
    assert torch.equal(batch["audio"][0, :8000], batch["audio"][0, 24000:])


@pytest.mark.parametrize(("context", "persistent"), [("fork", False), ("spawn", True)])
def test_workers_give_what_one_process_gives(folder: Path, context: str, persistent: bool) -> None:
    alone, data = (AlignedDataset(folder, "train", 1.0) for _ in range(2))
    alone[0]  # opens a shard, before the fork
    alone.set_epoch(0)
    loader: DataLoader[Any] = DataLoader(
        data, batch_size=4, shuffle=True, num_workers=2,
        multiprocessing_context=context, persistent_workers=persistent,
    )  # fmt: skip
    epochs = []
    for _ in range(2):
        found = {}
        for batch in loader:
            assert batch["audio"].shape == (4, RATE)
            for k, clip_id in enumerate(batch["clip_id"]):
                found[clip_id] = {name: value[k] for name, value in batch.items()}
        expected = {item["clip_id"]: item for item in alone}
        assert found.keys() == expected.keys()
        assert all(same(found[name], expected[name]) for name in expected)
        epochs.append([first_frame(found[name]) for name in sorted(found)])
    assert epochs[0] != epochs[1]


def test_folds_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "a.h5", "train", [1.0] * 6, header())
    with pytest.raises(FeatregError, match="fold 2"):
        AlignedDataset(tmp_path, fold=2)
    aligned = AlignedSet(tmp_path)
    assert aligned.clips.fold.tolist() == [-1] * 6
    monkeypatch.setattr("featreg.train.data.aligned_dataset.AlignedSet", lambda folder: aligned)
    aligned.clips.fold[:] = [1, 1, 2, 3, 3, -1]
    assert [item["clip_id"] for item in AlignedDataset(tmp_path, fold=3)] == ["a-3", "a-4"]
    assert len(AlignedDataset(tmp_path, fold=[1, 2])) == 3
    with pytest.raises(FeatregError, match=r"fold 7; .* 1, 2, 3"):
        AlignedDataset(tmp_path, fold=7)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"split": "training"}, "'training'.*train, valid, test"),
        ({"crop_s": 1.05}, r"1\.05.* 1 s"),
        ({"crop_s": 0}, "crop_s=0"),
        ({"crop_s": -1.0}, r"crop_s=-1"),
        ({"crop_s": float("nan")}, "crop_s=nan"),
        ({"features": ["vggish"]}, "'vggish'.*tones, noise"),
        ({"features": ["tones", "tones"]}, "tones"),
    ],
)
def test_a_wrong_argument_is_one_error(folder: Path, arguments: dict[str, Any], fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        AlignedDataset(folder, **arguments)


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_without_shards_names_the_next_step(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeatregError, match="prep align"):
        AlignedDataset(tmp_path / name)


def test_the_number_of_open_files_does_not_grow(folder: Path) -> None:
    data = AlignedDataset(folder, crop_s=1.0)
    list(data)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        list(data)
        list(AlignedDataset(folder, crop_s=1.0))
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the shared count of accesses
