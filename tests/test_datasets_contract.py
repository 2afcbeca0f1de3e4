"""What holds for every dataset, on the day it is registered, and for the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kit import tone, write
from miniatures import make

from featreg.datasets.audio.check import fault
from featreg.datasets.base import SPLITS, Clip, Dataset, UsageError
from featreg.datasets.collections import registry
from featreg.datasets.collections.info import Archive

# What must not lie in two splits: the song, the video, the speaker, the score, the artist.
GROUP_OF: dict[str, Callable[[Clip], str]] = {
    "demo": lambda clip: re.sub(r"-(fluid|musescore).*", "", clip.clip_id),
    "mtat": lambda clip: re.sub(r"-\d+-\d+$", "", clip.path.stem),
    "dcase2017": lambda clip: clip.clip_id[:11],
    "speech_commands": lambda clip: clip.path.name.partition("_")[0],
    "urbansound8k": lambda clip: clip.clip_id.partition("-")[0],
    "esc50": lambda clip: clip.clip_id.split("-")[1],
    "own": lambda clip: clip.path.name.partition("-")[0],
}


def again(name: str, folder: Path) -> Dataset:
    """A dataset that `dataset` made, read from where it lies."""
    if name == "own":
        return registry.read(str(folder / "own.csv"), None, work=folder, group="artist")
    if name == "demo":
        return registry.read(name, None, work=folder)
    return registry.read(name, folder / name, work=folder, allow_missing=True)


@pytest.fixture(params=(*registry.names(), "own"))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    """The demo as it is shipped, a miniature of every other dataset, and a manifest.

    The manifest's splits are made, by artist, and one in three of its labels is unknown.
    """
    name: str = request.param
    if name == "own":
        rows = [f"{n // 2}-{n}.wav,{n // 2},{n % 2},{('', 0, 1)[n % 3]}" for n in range(40)]
        (tmp_path / "own.csv").write_text("\n".join(["path,artist,odd,third", *rows]))
        for n in range(40):
            write(tmp_path / f"{n // 2}-{n}.wav", tone(0.1, 8000), 8000)
    elif name != "demo":
        make(name, tmp_path / name)
    return again(name, tmp_path)


def test_ids_are_unique(dataset: Dataset) -> None:
    ids = [clip.clip_id for clip in dataset.clips]
    assert ids
    assert len(set(ids)) == len(ids)
    assert not set(ids) & set(dataset.known_bad)


def test_splits_are_disjoint(dataset: Dataset) -> None:
    group_of = GROUP_OF[dataset.name]
    groups = {
        split: {group_of(clip) for clip in dataset.clips if clip.split == split} for split in SPLITS
    }
    assert all(groups.values())
    assert not groups["train"] & groups["valid"]
    assert not (groups["train"] | groups["valid"]) & groups["test"]


def test_labels_are_binary_and_masks_right(dataset: Dataset) -> None:
    for clip in dataset.clips:
        for vector in (clip.label, clip.label_mask):
            assert vector.shape == (len(dataset.classes),)
            assert vector.dtype == np.uint8
            assert set(vector.tolist()) <= {0, 1}
        assert not (clip.label & ~clip.label_mask).any()
        # The published ones are annotated for every class.
        unknown = clip.clip_id.endswith(".wav") and int(clip.path.stem.partition("-")[2]) % 3 == 0
        assert clip.label_mask.tolist() == [1] * (len(dataset.classes) - unknown) + [0] * unknown
        if dataset.task == "single-label":
            assert clip.label.sum() == 1


def test_files_are_there_and_durations_positive(dataset: Dataset) -> None:
    for clip in dataset.clips:
        assert clip.path.is_absolute()
        assert fault(clip) == ""
        assert clip.start_s >= 0
        assert clip.duration_s is None or clip.duration_s > 0


def test_the_order_is_always_the_same(tmp_path: Path, dataset: Dataset) -> None:
    other = again(dataset.name, tmp_path)
    assert [clip.clip_id for clip in other.clips] == [clip.clip_id for clip in dataset.clips]


def test_the_dataset_is_what_its_info_says(dataset: Dataset) -> None:
    if dataset.name == "own":  # whose file says it all
        assert registry.metric(dataset.name, dataset.task) == "pr_auc"
        return
    info = registry.info(dataset.name)
    assert (info.name, info.task, info.content) == (dataset.name, dataset.task, dataset.content)
    assert info.classes == dataset.classes
    assert len(set(info.classes)) == len(info.classes)
    assert all((info.title, info.licence, info.citation, info.needs))
    assert info.metric in {"pr_auc", "f1_samples", "accuracy"}
    assert registry.metric(dataset.name, dataset.task) == info.metric


@pytest.mark.parametrize("name", registry.names())
def test_downloads_are_over_https_and_stay_in_their_folder(name: str) -> None:
    for item in getattr(registry.module(name), "DOWNLOADS", ()):
        for remote in item.parts if isinstance(item, Archive) else (item,):
            assert remote.url.startswith("https://")
            assert re.fullmatch(r"|(md5|sha256|git-blob-sha1):[0-9a-f]{32,64}", remote.checksum)
        if isinstance(item, Archive):
            for evil in ("../evil.wav", "/etc/passwd", "0/../../x.mp3", "yes/../../x.wav"):
                match = re.search(item.member, evil)
                assert match is None or ".." not in Path(match[1]).parts


# --- the registry


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'mtta'; .* demo, mtat.* CSV file"):
        registry.read("mtta", None, work=tmp_path)


def test_a_csv_file_is_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{split}.wav,{split},x" for split in SPLITS]
    (tmp_path / "my-own.csv").write_text("\n".join(["path,split,labels", *rows]))
    for split in SPLITS:
        (tmp_path / f"{split}.wav").touch()
    monkeypatch.chdir(tmp_path)
    dataset = registry.read("my-own.csv", None, work=tmp_path, task="single-label")
    assert dataset.name == "my-own"
    assert dataset.clips[0].path == tmp_path / "train.wav"
    assert registry.metric(dataset.name, dataset.task) == "accuracy"
    assert registry.metric("my-own", "multi-label") == "pr_auc"


@pytest.mark.parametrize("stem", ["mtat", "runs", ".hidden", "a b"])
def test_a_manifest_must_be_able_to_name_a_folder(tmp_path: Path, stem: str) -> None:
    with pytest.raises(UsageError, match="is the name of the dataset"):
        registry.read(f"{stem}.csv", None, work=tmp_path)


def test_an_option_of_another_dataset_is_refused(tmp_path: Path) -> None:
    message = "--group is not an option of mtat; its options: --all-clips, --allow-missing"
    with pytest.raises(UsageError, match=message):
        registry.read("mtat", None, work=tmp_path, group="song")


def test_where_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATREG_DATA", raising=False)
    assert registry.default_root("mtat", tmp_path) == tmp_path / "mtat" / "source"
    monkeypatch.setenv("FEATREG_DATA", "/data")
    assert registry.default_root("mtat", tmp_path) == Path("/data/mtat")
    assert registry.default_root("demo", tmp_path).name == "demo_clips"
