"""A damaged shard is done again, or named with the next step; other shards are unharmed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner
from kit import make_dataset, tone, write
from test_pipeline import AUDIO, LOUDNESS, align, contents, extract

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.shards.native import native_shard
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
def test_a_native_shard_whose_account_is_damaged_is_done_again(
    name: str, dataset: Dataset, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    folder = DatasetDir(work / "tones")
    extract(dataset, work, REQUEST)
    before = contents(work)
    path = folder.native("loudness") / "train-00001.h5"
    damage(path, name)
    (job,) = make_plan(dataset, folder, REQUEST).jobs
    assert job.path("loudness") == path
    assert f"{path}: damaged (" in job.reasons[0]
    if name == "clip_id":
        with pytest.raises(FeatregError, match=f"{path}: damaged .* delete it and run the command"):
            align(work)
    extract(dataset, work, REQUEST)
    assert contents(work) == before


def test_damaged_rows_stop_alignment_with_a_line_that_names_their_file(
    dataset: Dataset, tmp_path: Path
) -> None:
    extract(dataset, tmp_path, REQUEST)
    path = DatasetDir(tmp_path / "tones").native("loudness") / "train-00000.h5"
    damage(path, "frames")
    line = ["align", "--work", str(tmp_path), "--resolution", "0.1", "--workers", "1"]
    done = CliRunner().invoke(prep, line)
    assert done.exit_code == 1
    assert f"{path}: damaged (" in done.output
    assert "delete it and run the command again" in done.output
    path.unlink()
    extract(dataset, tmp_path, REQUEST)
    assert CliRunner().invoke(prep, line).exit_code == 0


def test_damaged_rows_of_a_shard_that_is_kept_are_computed_anew(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = replace(REQUEST, shard_clips=4)
    extract(dataset, tmp_path / "whole", request)
    extract(dataset, tmp_path / "work", request, limit=3)  # the fourth is still to come
    path = DatasetDir(tmp_path / "work" / "tones").native("audio") / "train-00000.h5"
    damage(path, "frames")  # a chunk that two clips share
    summary = extract(dataset, tmp_path / "work", request)
    assert f"{path}: rows of 2 clips were damaged, train-0 among" in capsys.readouterr().err
    assert (summary.clips, summary.failed) == (4, 0)
    assert contents(tmp_path / "work") == contents(tmp_path / "whole")


def test_damaged_rows_beyond_the_limit_of_a_run_are_left_to_the_next(
    dataset: Dataset, tmp_path: Path
) -> None:
    request = replace(REQUEST, shard_clips=4)
    extract(dataset, tmp_path, request)
    whole = contents(tmp_path)
    path = DatasetDir(tmp_path / "tones").native("loudness") / "train-00000.h5"
    damage(path, "frames")
    touched = dataset.clips[0].path
    write(touched, tone(1.0, 22050, seed=99), 22050)
    extract(dataset, tmp_path, request, limit=1)
    with native_shard(path) as shard:
        assert shard.clip_ids == [dataset.clips[0].clip_id]
    extract(dataset, tmp_path, request)
    again = contents(tmp_path)
    assert again.keys() == whole.keys()
    with native_shard(path) as shard:
        assert shard.clip_ids == [clip.clip_id for clip in dataset.clips]


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
    path = folder.native("loudness") / "train-00000.h5"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 150):
        flip(path, place)
        make_plan(dataset, folder, REQUEST)
        with suppress(FeatregError):
            align(tmp_path)
        path.write_bytes(whole)
