"""A folder that has what was asked for passes; where a shard or a clip is missing, it fails.

Eight clips of train and two of valid, in shards of two; train-5 is no audio.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kit import make_dataset
from loudness import LoudnessConfig

from featreg.datasets.base import Dataset
from featreg.datasets.shards.native import native_shard, native_writer
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.registry import FeatureSpec
from featreg.extract.extractors.waveform import WaveformConfig
from featreg.extract.pipeline import run
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.plan import Request, ShardJob, ShardResult, make_plan
from featreg.extract.pipeline.run import run_extraction

AUDIO = FeatureSpec("audio", WaveformConfig())
LOUDNESS = FeatureSpec("loudness", LoudnessConfig(), source="loudness:Loudness")


def extract(
    dataset: Dataset,
    work: Path,
    features: Sequence[FeatureSpec] = (AUDIO, LOUDNESS),
    limit: int | None = None,
) -> DatasetDir:
    folder = DatasetDir(work / dataset.name)
    plan = make_plan(dataset, folder, Request(tuple(features), shard_clips=2), limit=limit)
    run_extraction(dataset, folder, [spec.name for spec in features], plan, Workers(0, 1))
    return folder


def align(folder: DatasetDir) -> Path:
    plan = plan_alignment(folder, ("loudness",), 0.1, "repeat")
    for path in plan.stale:
        path.unlink()
    for job in plan.jobs:
        align_shard(job)
    return plan.target


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    source = tmp_path_factory.mktemp("source")
    made = make_dataset(source, {"train": 8, "valid": 2}, seconds=0.3)
    (source / "train-5.wav").write_text("no audio")
    return made


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("whole")
    align(extract(dataset, work))
    return work


@pytest.fixture
def work(whole: Path, tmp_path: Path) -> Path:
    """A copy of a whole working folder, to break."""
    return Path(shutil.copytree(whole, tmp_path / "work"))


def verify(path: Path) -> Result:
    return CliRunner().invoke(prep, ["verify", str(path), "--workers", "1"])


def only_fault(path: Path) -> str:
    """The one line that says what is wrong; all else is whole."""
    result = verify(path)
    assert result.exit_code == 1, result.output
    assert "1 error in" in result.output
    # Messages and progress go to the other stream.
    (fault,) = result.stdout.splitlines()
    return fault


def test_a_whole_folder_passes_and_its_clips_are_counted(work: Path) -> None:
    for path in (work, work / "tones"):
        result = verify(path)
        assert result.exit_code == 0, result.output
        assert "no errors in 15 shards" in result.output
        for line in (
            "tones: audio: 9 clips present, 1 failed, 0 missing, of 10 requested",
            "tones: loudness: 9 clips present, 1 failed, 0 missing, of 10 requested",
            "tones: aligned loudness-0.1s: 9 clips of 10",
        ):
            assert line in result.output.splitlines()


@pytest.mark.parametrize("part", ["native", "aligned"])
def test_a_folder_without_native_or_aligned_shards_passes(part: str, work: Path) -> None:
    shutil.rmtree(work / "tones" / part)
    assert verify(work).exit_code == 0


def test_shards_without_their_clip_list_are_checked_alone(work: Path) -> None:
    (work / "tones" / "clips.csv").unlink()
    (work / "tones" / "native" / "loudness" / "00001.h5").unlink()
    assert verify(work).exit_code == 0


def test_a_part_of_a_folder_is_not_held_to_the_whole(work: Path) -> None:
    (work / "tones" / "native" / "loudness" / "00001.h5").unlink()
    assert verify(work / "tones" / "native" / "loudness").exit_code == 0


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_a_run_with_a_limit_passes(limit: int, dataset: Dataset, tmp_path: Path) -> None:
    # One feature may have been asked of more clips than another.
    extract(dataset, tmp_path, [AUDIO], limit=5)
    align(extract(dataset, tmp_path, limit=limit))
    result = verify(tmp_path)
    assert result.exit_code == 0, result.output
    asked = limit + min(limit, 2)
    line = f"tones: loudness: {asked} clips present, 0 failed, 0 missing, of {asked} requested"
    assert line in result.output.splitlines()


def test_a_run_with_a_limit_after_a_whole_one_asks_for_no_less(
    dataset: Dataset, work: Path
) -> None:
    extract(dataset, work, limit=1)
    (work / "tones" / "native" / "loudness" / "00004.h5").unlink()
    assert "2 clips (such as valid-0)" in only_fault(work)


@pytest.mark.parametrize("feature", ["audio", "loudness"])
@pytest.mark.parametrize("number", range(5))
def test_any_deleted_native_shard_is_found(feature: str, number: int, work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    folder = work / "tones" / "native" / feature
    (folder / f"{number:05d}.h5").unlink()
    fault = only_fault(work)
    first = ("train-0", "train-2", "train-4", "train-6", "valid-0")[number]
    assert fault.startswith(f"{folder}: ")
    assert f"clip {first}" in fault or f"2 clips (such as {first})" in fault
    assert f"prep extract --dataset tones --features {feature}" in fault


def test_a_feature_that_is_gone_altogether_is_found(work: Path) -> None:
    shutil.rmtree(work / "tones" / "native" / "audio")
    assert "prep extract --dataset tones --features audio" in only_fault(work)


def test_a_deleted_aligned_shard_is_found(work: Path) -> None:
    target = work / "tones" / "aligned" / "loudness-0.1s"
    (target / "00001.h5").unlink()
    fault = only_fault(work)
    assert fault.startswith(f"{target}: shard 00001.h5")
    assert "prep align --dataset tones --resolution 0.1 --features loudness" in fault
    align(DatasetDir(work / "tones"))
    assert verify(work).exit_code == 0


def test_clips_that_were_extracted_since_are_to_be_aligned(
    dataset: Dataset, tmp_path: Path
) -> None:
    folder = extract(dataset, tmp_path, limit=2)
    align(folder)
    extract(dataset, tmp_path)
    fault = only_fault(tmp_path)
    assert "00002.h5" in fault
    assert "prep align " in fault


def test_a_clip_that_a_shard_lost_is_found(work: Path) -> None:
    """The shard is written again, as if the clip had never been in it."""
    shutil.rmtree(work / "tones" / "aligned")
    path = work / "tones" / "native" / "loudness" / "00001.h5"
    with native_shard(path) as shard:
        clip = ("train-2", shard.stored("train-2"), shard.durations["train-2"])
        fingerprint, header = shard.fingerprints["train-2"], shard.header
    with native_writer(path, header) as writer:
        writer.append(*clip, fingerprint)
    assert "clip train-3 missing" in only_fault(work)


def test_clips_of_a_job_that_failed_whole_are_not_missing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their shard is not written; they are in failures.csv."""

    def extract_shard(job: ShardJob) -> ShardResult:
        if job.numbers["audio"] == 1:
            raise RuntimeError("too long")
        return extracted(job)

    extracted = run.extract_shard
    monkeypatch.setattr(run, "extract_shard", extract_shard)
    extract(dataset, tmp_path)
    result = verify(tmp_path)
    assert result.exit_code == 0, result.output
    assert "tones: audio: 7 clips present, 3 failed, 0 missing, of 10 requested" in result.output


def rewrite_list(work: Path, change: dict[str, object] | None, but: str = "") -> None:
    """Change columns of train-0 in the clip list, and leave a clip out."""
    path = work / "tones" / "clips.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, value in (change or {}).items():
        table.loc[table["clip_id"] == "train-0", column] = value
    table[table["clip_id"] != but].to_csv(path, index=False)


@pytest.mark.parametrize("change", [{"high": "1"}, {"low": ""}, {"split": "test"}])
def test_labels_other_than_the_list_has_are_found(work: Path, change: dict[str, object]) -> None:
    rewrite_list(work, change)
    fault = only_fault(work)
    assert fault.startswith(f"{work}/tones/aligned/loudness-0.1s/00000.h5: split or labels ")
    assert "clips.csv: clip train-0; run `prep align " in fault


def test_another_fold_than_the_list_has_is_found(work: Path) -> None:
    path = work / "tones" / "clips.csv"
    table = pd.read_csv(path)
    table.insert(3, "fold", 0)
    table.to_csv(path, index=False)
    fault = only_fault(work)
    assert "5 shards, such as 00000.h5" in fault
    assert "prep align " in fault


def test_other_classes_than_the_list_has_are_found(work: Path) -> None:
    path = work / "tones" / "dataset.json"
    path.write_text(path.read_text().replace('"low"', '"deep"'))
    table = work / "tones" / "clips.csv"
    table.write_text(table.read_text().replace(",low,", ",deep,"))
    result = verify(work)
    assert result.exit_code == 1
    assert "00000.h5: the classes differ from" in result.output
    assert "5 errors in" in result.output


def test_a_clip_that_the_list_has_not_is_found_among_aligned_ones(work: Path) -> None:
    rewrite_list(work, None, but="train-6")
    assert "00003.h5: clip train-6 not in" in only_fault(work)
    align(DatasetDir(work / "tones"))
    result = verify(work)
    assert result.exit_code == 0, result.output
    assert re.search(r"1 more .*clips\.csv", result.output)


def test_shards_of_different_settings_are_found(work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    folder = work / "tones" / "native"
    shutil.copy(folder / "audio" / "00001.h5", folder / "loudness" / "00001.h5")
    assert "different settings" in only_fault(work)


def test_where_a_shard_is_damaged_its_own_fault_says_enough(work: Path) -> None:
    folder = work / "tones" / "native" / "loudness"
    with h5py.File(folder / "00001.h5", "r+") as file:
        file["frames"][0] = 99
    result = verify(work)
    assert result.exit_code == 1
    assert "1 error in" in result.output
    assert "delete each damaged shard" in result.output
    (folder / "00001.h5").write_bytes(b"")
    (fault,) = verify(work).stdout.splitlines()
    assert fault.startswith(f"{folder / '00001.h5'}: not a readable HDF5 file")


@pytest.mark.parametrize("name", ["clips.csv", "failures.csv", "dataset.json"])
def test_a_list_that_cannot_be_read_is_a_fault(work: Path, name: str) -> None:
    (work / "tones" / name).write_text("{")
    assert str(work / "tones" / name) in only_fault(work)


def test_several_datasets_are_each_held_to_their_own_list(work: Path) -> None:
    shutil.copytree(work / "tones", work / "others")
    (work / "others" / "native" / "loudness" / "00000.h5").unlink()
    shutil.rmtree(work / "others" / "aligned")
    assert only_fault(work).startswith(str(work / "others" / "native" / "loudness"))


def test_the_folder_may_be_where_one_stands(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    (work / "tones" / "native" / "loudness" / "00000.h5").unlink()
    monkeypatch.chdir(work / "tones")
    assert "prep extract --dataset tones" in only_fault(Path())
    for below in ("native", "native/loudness"):
        monkeypatch.chdir(work / "tones" / below)
        assert verify(Path()).exit_code == 0
