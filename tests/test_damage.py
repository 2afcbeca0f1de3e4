"""A damaged shard is written again, or named with the next step; others are unharmed."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner
from extractions import AUDIO, LOUDNESS, align, clips_of, contents, extract
from kit import make_dataset

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.cli.prep import prep
from featreg.extract.pipeline.plan import Request, make_plan

REQUEST = Request((AUDIO, LOUDNESS), shard_clips=2)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "source", {"train": 4})


def damage(path: Path, name: str) -> None:
    """Flip a bit of a dataset's values."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    flip(path, chunk.byte_offset + chunk.size // 2)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["clip_id", "fingerprint", "duration_s"])
def test_a_native_shard_whose_index_is_damaged_is_written_again(
    name: str, dataset: Dataset, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    folder = DatasetDir(work / "tones")
    extract(dataset, work, REQUEST)
    before = contents(work)
    path = folder.native("loudness") / "00000.h5"
    damage(path, name)
    plan = make_plan(dataset, folder, REQUEST)
    (job,) = plan.jobs
    assert job.path("loudness") == path
    assert [clip.clip_id for clip in job.clips] == ["train-0", "train-1"]
    (reason,) = plan.reasons["loudness"]
    assert str(path) in reason
    assert "damaged" in reason
    assert plan.obsolete == ()
    with pytest.raises(FeatregError, match=f"{path}: damaged .* delete this file and run"):
        align(work)
    extract(dataset, work, REQUEST)
    assert contents(work) == before


def test_a_damaged_shard_whose_clips_are_elsewhere_is_removed(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path, REQUEST)
    folder = DatasetDir(tmp_path / "tones")
    path = folder.native("loudness") / "00002.h5"
    path.write_bytes((folder.native("loudness") / "00001.h5").read_bytes())
    damage(path, "clip_id")
    assert extract(dataset, tmp_path, REQUEST).new_clips == 0
    assert not path.exists()
    align(tmp_path)


def test_damaged_frames_stop_alignment_with_a_line_that_names_their_file(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path, REQUEST)
    before = clips_of(tmp_path)
    path = DatasetDir(tmp_path / "tones").native("loudness") / "00000.h5"
    damage(path, "frames")
    line = ["align", "--work", str(tmp_path), "--resolution", "0.1", "--workers", "1"]
    done = CliRunner().invoke(prep, line)
    assert done.exit_code == 1
    assert f"{path}: damaged (" in done.output
    assert "delete this file and run the command" in done.output
    path.unlink()
    assert extract(dataset, tmp_path, REQUEST).new_clips == 2
    assert clips_of(tmp_path) == before
    assert CliRunner().invoke(prep, line).exit_code == 0


def test_shards_of_another_version_are_refused_and_kept(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path, REQUEST)
    align(tmp_path)
    folder = DatasetDir(tmp_path / "tones")
    path = folder.native("audio") / "00000.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
        file.attrs["featreg_version"] = "0.1.0"
    path.rename(path.with_name("train-00000.h5"))
    for command in (
        lambda: make_plan(dataset, folder, REQUEST),
        lambda: align(tmp_path, 0.2),
    ):
        with pytest.raises(FeatregError) as refused:
            command()
        assert "featreg 0.1.0" in str(refused.value)
        assert f"delete the folder {folder.native('audio')}" in str(refused.value)
        assert "prep extract" in str(refused.value)
    done = CliRunner().invoke(prep, ["verify", str(tmp_path), "--workers", "1"])
    assert done.exit_code == 1
    assert "0.1.0" in done.output


def test_a_damaged_aligned_shard_is_written_again(dataset: Dataset, tmp_path: Path) -> None:
    extract(dataset, tmp_path, REQUEST)
    path, _ = align(tmp_path)
    before = contents(tmp_path)
    damage(path, "label")
    assert align(tmp_path) == [path]
    assert contents(tmp_path) == before


def test_wherever_the_damage_is_nothing_but_a_named_error_comes_of_it(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path, REQUEST)
    folder = DatasetDir(tmp_path / "tones")
    path = folder.native("loudness") / "00000.h5"
    whole = path.read_bytes()
    planned, named = 0, []
    for place in range(0, len(whole), len(whole) // 150):
        flip(path, place)
        planned += len(make_plan(dataset, folder, REQUEST).jobs)
        try:
            align(tmp_path)
        except FeatregError as error:
            named.append(str(error))
        path.write_bytes(whole)
    assert planned
    assert named
    assert all(str(path) in line for line in named)
    assert not make_plan(dataset, folder, REQUEST).jobs
