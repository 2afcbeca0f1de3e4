"""Datasets with official folds."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniatures import make

from featreg.datasets.base import FeatregError
from featreg.datasets.collections import esc50, urbansound8k


def test_urbansound8k_has_its_ten_folds(tmp_path: Path) -> None:
    dataset = urbansound8k.read(make("urbansound8k", tmp_path / "urban"), allow_missing=True)
    assert {clip.fold for clip in dataset.clips} == {*range(1, 11)}
    for clip in dataset.clips:
        assert clip.path.parent.name == f"fold{clip.fold}"
        assert clip.split == {9: "valid", 10: "test"}.get(clip.fold or 0, "train")
        assert dataset.classes[clip.label.argmax()] == "dog_bark"


def test_esc10_is_a_subset_of_esc50(tmp_path: Path) -> None:
    root = make("esc50", tmp_path / "esc")
    everything = esc50.read(root, allow_missing=True)
    subset = esc50.read(root, esc10=True, allow_missing=True)
    assert [clip.fold for clip in everything.clips] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert len(subset.classes) == 10
    assert [clip.clip_id for clip in subset.clips] == [
        clip.clip_id for clip in everything.clips if clip.clip_id.endswith("A-0")
    ]
    assert all(subset.classes[clip.label.argmax()] == "dog" for clip in subset.clips)


@pytest.mark.parametrize("name", ["urbansound8k", "esc50"])
@pytest.mark.parametrize(("old", "new"), [("fold", "fould"), (",3,", ",13,"), ("dog", "dig")])
def test_a_damaged_index_is_refused_by_line(name: str, old: str, new: str, tmp_path: Path) -> None:
    module = {"urbansound8k": urbansound8k, "esc50": esc50}[name]
    root = make(name, tmp_path / name)
    index = root / module.INDEX
    index.write_text(index.read_text().replace(old, new))
    with pytest.raises(FeatregError, match=rf"{index.name}, line \d+"):
        module.read(root, allow_missing=True)
