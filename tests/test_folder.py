"""A feature that is a folder of arrays: read, refused, and kept to its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from custom_feature_runs import rows_of, run, write_manifest

from featreg.datasets.base import ClipError, UsageError
from featreg.datasets.collections.manifest import read
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.npy_folder import FolderConfig, complete, folder_class


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("clips"))


def in_folder(manifest: Path, work: Path, folder: Path, *more: str) -> Result:
    return run(work, f"prep extract --dataset {manifest} --workers 1 --features made",
               "--set", f"made.folder={folder}", "--set", "made.hop=0.1", *more)  # fmt: skip


def test_files_that_are_missing_or_misshapen_fail_their_clips_and_are_read_when_they_are_right(
    manifest: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "arrays"
    for clip in read(manifest).clips:
        (folder / clip.clip_id).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{clip.clip_id}.npy", np.ones((10, 5), np.float16))
    (folder / "train/0.npy").unlink()
    np.save(folder / "train/1.npy", np.ones((10, 4)))
    np.save(folder / "train/2.npy", np.ones((100, 5)))
    (folder / "train/3.npy").write_bytes(b"not an array")
    np.save(folder / "valid/0.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder / "valid/1.npy", np.ones((9, 5), np.complex64))
    done = in_folder(manifest, tmp_path / "work", folder)
    assert done.exit_code == 1
    assert "2 clips extracted, 6 failed" in done.output
    failures = pd.read_csv(tmp_path / "work" / "tones" / "failures.csv", index_col="clip_id")
    assert set(failures.stage) == {"extract"}
    for clip_id, fact in {
        "train/0": "",
        "train/1": "(10, 4)",
        "train/2": "100 ",
        "train/3": "",
        "valid/0": "",
        "valid/1": "complex64",
    }.items():
        assert failures.reason[clip_id].startswith(f"{folder}/{clip_id}.npy")
        assert fact in failures.reason[clip_id]

    for clip_id in failures.index:
        np.save(folder / f"{clip_id}.npy", np.full((10, 5), 2))
    assert in_folder(manifest, tmp_path / "work", folder).exit_code == 0
    assert rows_of(tmp_path / "work", "made")["train/0"].tolist() == [[2] * 5] * 10
    # Elsewhere, the same files are the same feature; a changed file is another.
    folder = folder.rename(tmp_path / "moved")
    assert "nothing new" in in_folder(manifest, tmp_path / "work", folder).output
    np.save(folder / "test/0.npy", np.full((10, 5), 3))
    again = in_folder(manifest, tmp_path / "work", folder)
    assert "this run: 1 clip," in again.output
    assert rows_of(tmp_path / "work", "made")["test/0"].tolist() == [[3] * 5] * 10


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FolderConfig(hop=0.1), r"--set made\.folder=DIR and .*made\.folder"),
        (FolderConfig(Path("here")), r"made\.hop"),
        (FolderConfig(Path("here"), -1), r"--set made.hop=-1: expected seconds above 0"),
        (FolderConfig(Path("here"), float("nan")), r"--set made.hop=nan: expected seconds above"),
        (FolderConfig(Path("here"), 1, 0), r"--set made.window=0: expected seconds above 0"),
        (FolderConfig(Path("nowhere"), 1), r"--set made.folder=nowhere: no such folder"),
        (FolderConfig(Path("here"), 1), r"expected files CLIP_ID.npy .* found none"),
    ],
)
def test_folders_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: FolderConfig, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    np.save(tmp_path / "here" / "flat.npy", np.ones(3))
    with pytest.raises(UsageError, match=message):
        complete("made", config)


def test_a_row_covers_its_hop_unless_the_user_says_other(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 7)))
    made = folder_class("made")(complete("made", FolderConfig(tmp_path, 0.5)), {})
    assert (made.name, made.dim, made.timing) == ("made", 7, FrameTiming(0.5, 0.5, 0.25))
    other = complete("made", FolderConfig(tmp_path, 0.5, 2.0, 0.0, 9))
    assert folder_class("made")(other, {}).timing == FrameTiming(0.5, 2.0, 0.0)
    assert other.dim == 9


@pytest.mark.parametrize("clip_id", ["../a", "/a", "b/../../a"])
def test_ids_do_not_lead_out_of_the_folder(tmp_path: Path, clip_id: str) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 7)))
    (tmp_path / "here").mkdir()
    np.save(tmp_path / "here" / "b.npy", np.ones((3, 7)))
    made = folder_class("made")(complete("made", FolderConfig(tmp_path / "here", 0.5)), {})
    with pytest.raises(ClipError, match=r"clip id .* column clip_id"):
        made.prepare(clip_id, np.zeros(16000, np.float32))
