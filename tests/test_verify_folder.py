"""A folder that has what its clip list says passes; where a shard or a clip has gone, it fails.

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
from featreg.datasets.shards.workdir import DatasetDir, shard_name
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.registry import FeatureSpec
from featreg.extract.extractors.waveform import WaveformConfig
from featreg.extract.inspection.verify_folder import FolderCheck, check_shard
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
    assert "1 faults in " in result.output
    assert "the lines above say what to do" in result.output
    # Messages and progress go to the other stream.
    (fault,) = result.stdout.splitlines()
    return fault


def test_a_whole_folder_passes_and_its_clips_are_counted(work: Path) -> None:
    for path in (work, work / "tones"):
        result = verify(path)
        assert result.exit_code == 0, result.output
        assert "15 shards are whole" in result.output
        for line in (
            "tones: audio: 9 clips with rows, 1 failed, 0 lacking, of 10",
            "tones: loudness: 9 clips with rows, 1 failed, 0 lacking, of 10",
            "tones: aligned loudness-0.1s: 9 clips of 10",
        ):
            assert line in result.output.splitlines()


def test_a_folder_with_only_native_shards_passes(work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    assert verify(work).exit_code == 0


def test_a_folder_with_only_aligned_shards_passes(work: Path) -> None:
    """All is aligned, and the native shards take room."""
    shutil.rmtree(work / "tones" / "native")
    result = verify(work)
    assert result.exit_code == 0, result.output
    assert "tones: loudness: 0 clips with rows, 1 failed, 9 lacking, of 10" in result.output


def test_shards_without_their_clip_list_are_checked_alone(work: Path) -> None:
    (work / "tones" / "clips.csv").unlink()
    (work / "tones" / "native" / "loudness" / "train-00001.h5").unlink()
    result = verify(work)
    assert result.exit_code == 0, result.output
    assert "14 shards are whole" in result.output


def test_a_part_of_a_folder_is_not_held_to_the_whole(work: Path) -> None:
    (work / "tones" / "native" / "loudness" / "train-00001.h5").unlink()
    assert verify(work / "tones" / "native" / "loudness").exit_code == 0


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_a_run_with_a_limit_passes(limit: int, dataset: Dataset, tmp_path: Path) -> None:
    # One feature may have gone further than another.
    extract(dataset, tmp_path, [AUDIO], limit=5)
    align(extract(dataset, tmp_path, limit=limit))
    result = verify(tmp_path)
    assert result.exit_code == 0, result.output
    there = limit + min(limit, 2)
    line = f"tones: loudness: {there} clips with rows, 0 failed, {10 - there} lacking, of 10"
    assert line in result.output


def test_a_deleted_shard_is_found_by_the_clips_around_it(work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    (work / "tones" / "native" / "loudness" / "train-00001.h5").unlink()
    fault = only_fault(work)
    assert fault.startswith(f"{work / 'tones' / 'native' / 'loudness'}: no rows of 2 clips, ")
    assert "train-2 among them (train-00001.h5 missing)" in fault
    assert "though later ones of the split are there" in fault
    assert "failures.csv does not say why" in fault
    assert "run `prep extract --dataset tones --features loudness ...` again" in fault


def test_a_deleted_last_shard_is_found_by_what_was_aligned_from_it(work: Path) -> None:
    (work / "tones" / "native" / "loudness" / "valid-00000.h5").unlink()
    fault = only_fault(work)
    assert "no rows of 2 clips, valid-0 among them, though aligned/loudness-0.1s has them" in fault


def test_deleted_last_audio_is_found_by_the_features_beside_it(work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    (work / "tones" / "native" / "audio" / "train-00003.h5").unlink()
    fault = only_fault(work)
    assert "no rows of 2 clips, train-6 among them, though loudness has them" in fault


def test_audio_that_is_gone_altogether_is_found_by_the_features_beside_it(work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    shutil.rmtree(work / "tones" / "native" / "audio")
    result = verify(work)
    assert result.exit_code == 1
    assert "though loudness has them" in result.output
    assert "run `prep extract --dataset tones --features audio ...` again" in result.output


def test_a_deleted_aligned_shard_is_found(work: Path) -> None:
    target = work / "tones" / "aligned" / "loudness-0.1s"
    (target / "train-00000.h5").unlink()
    fault = only_fault(work)
    assert fault == (
        f"{target}: lacks 2 clips, train-0 among them (train-00000.h5 missing), with rows of "
        "every feature; run `prep align --dataset tones --resolution 0.1 --features loudness` again"
    )
    align(DatasetDir(work / "tones"))
    assert verify(work).exit_code == 0


def test_a_gap_among_aligned_shards_is_found_without_their_native_ones(work: Path) -> None:
    shutil.rmtree(work / "tones" / "native")
    (work / "tones" / "aligned" / "loudness-0.1s" / "train-00001.h5").unlink()
    fault = only_fault(work)
    assert "train-00001.h5 missing, later ones are there; run `prep align " in fault


def test_clips_that_were_extracted_since_are_to_be_aligned(
    dataset: Dataset, tmp_path: Path
) -> None:
    folder = extract(dataset, tmp_path, limit=2)
    align(folder)
    extract(dataset, tmp_path)
    fault = only_fault(tmp_path)
    assert "lacks 5 clips, train-2 among them, with rows of every feature" in fault
    assert "run `prep align " in fault


def without(path: Path, clip_id: str) -> None:
    """Write a native shard again, sealed, as if a clip had never been in it."""
    with native_shard(path) as shard:
        clips = [
            (key, shard.stored(key), shard.durations[key], shard.fingerprints[key])
            for key in shard.clip_ids
            if key != clip_id
        ]
        failures = [each for each in shard.failures if each.clip_id != clip_id]
        header = shard.header
    with native_writer(path, header) as writer:
        for clip in clips:
            writer.append(*clip)
        for failure in failures:
            writer.fail(failure)


def test_a_clip_that_a_shard_lost_is_found(work: Path) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    without(work / "tones" / "native" / "loudness" / "train-00001.h5", "train-3")
    fault = only_fault(work)
    assert "no rows of clip train-3, though later ones" in fault


def test_a_failure_excuses_the_feature_that_it_is_of(work: Path) -> None:
    native = work / "tones" / "native"
    without(native / "loudness" / "train-00002.h5", "train-5")
    # The line in failures.csv is the audio's, whose shard tells the same.
    assert f"{native / 'loudness'}: no rows of clip train-5, though later" in only_fault(work)
    without(native / "audio" / "train-00002.h5", "train-5")
    # Now no shard does: the line may be any feature's.
    assert verify(work).exit_code == 0
    (work / "tones" / "failures.csv").unlink()
    result = verify(work)
    assert result.exit_code == 1
    assert "2 faults in 15 shards" in result.output


def test_a_shard_that_failed_whole_is_no_gap(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not written; its clips are in failures.csv, as the run said."""

    def extract_shard(job: ShardJob) -> ShardResult:
        if (job.split, job.index) == ("train", 1):
            raise MemoryError("too long")
        return extracted(job)

    extracted = run.extract_shard
    monkeypatch.setattr(run, "extract_shard", extract_shard)
    extract(dataset, tmp_path)
    result = verify(tmp_path)
    assert result.exit_code == 0, result.output
    assert "tones: audio: 7 clips with rows, 3 failed, 0 lacking, of 10" in result.output


def test_a_renamed_shard_leaves_a_gap(work: Path) -> None:
    folder = work / "tones" / "native" / "loudness"
    (folder / shard_name("valid", 0)).rename(folder / shard_name("valid", 2))
    # Rows of all clips are there, so that only the numbers tell.
    fault = only_fault(work)
    assert "valid-00000.h5, valid-00001.h5 missing, later ones are there; run `prep ex" in fault


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
    assert fault.startswith(f"{work}/tones/aligned/loudness-0.1s/train-00000.h5: split or labels ")
    assert "clips.csv: clip train-0; run `prep align " in fault


def test_other_classes_than_the_list_has_are_found(work: Path) -> None:
    path = work / "tones" / "dataset.json"
    path.write_text(path.read_text().replace('"low"', '"deep"'))
    table = work / "tones" / "clips.csv"
    table.write_text(table.read_text().replace(",low,", ",deep,"))
    result = verify(work)
    assert result.exit_code == 1
    assert "train-00000.h5: its classes are not those of" in result.output
    assert "5 faults in 15 shards" in result.output


def test_a_clip_that_the_list_has_not_is_found_wherever_it_is(work: Path) -> None:
    rewrite_list(work, None, but="train-6")
    result = verify(work)
    assert result.exit_code == 1
    assert "3 faults in 15 shards" in result.output
    for line, remedy in zip(
        result.stdout.splitlines(), ["prep align", "prep extract", "prep extract"], strict=True
    ):
        assert re.search(r"train-0000\d\.h5: not in \S+clips\.csv: clip train-6; run", line)
        assert remedy in line


def test_a_clip_in_two_shards_is_found(work: Path) -> None:
    folder = work / "tones" / "native" / "loudness"
    shutil.copy(folder / shard_name("valid", 0), folder / shard_name("valid", 1))
    fault = only_fault(work)
    assert "valid-00000.h5: also in valid-00001.h5: 2 clips, valid-0 among them" in fault
    assert "without --split and --limit" in fault


def test_where_a_shard_is_damaged_its_own_fault_says_enough(work: Path) -> None:
    folder = work / "tones" / "native" / "loudness"
    with h5py.File(folder / "train-00001.h5", "r+") as file:
        file["frames"][0] = 99
    result = verify(work)
    assert result.exit_code == 1
    assert (
        "1 faults in 15 shards; delete the shards named and run the command again that wrote them"
    ) in result.output
    assert "tones: loudness: 7 clips with rows, 1 failed, 2 lacking, of 10, not count" in (
        result.output
    )
    (folder / "train-00000.h5").unlink()
    result = verify(work)
    assert "2 faults in 14 shards; delete the shards named" in result.output
    assert "of the others the lines above say what to do" in result.output
    assert f"{folder}: train-00000.h5 missing, later ones are there" in result.output


@pytest.mark.parametrize("name", ["clips.csv", "failures.csv", "dataset.json"])
def test_a_list_that_cannot_be_read_is_a_fault(work: Path, name: str) -> None:
    (work / "tones" / name).write_text("{")
    fault = only_fault(work)
    assert f"{work / 'tones' / name}: not as featreg wrote it" in fault


def test_several_datasets_are_each_held_to_their_own_list(work: Path) -> None:
    shutil.copytree(work / "tones", work / "others")
    (work / "others" / "native" / "loudness" / "train-00000.h5").unlink()
    shutil.rmtree(work / "others" / "aligned")
    assert only_fault(work).startswith(str(work / "others" / "native" / "loudness"))


def test_the_folder_may_be_where_one_stands(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(work / "tones" / "aligned")
    (work / "tones" / "native" / "loudness" / "train-00000.h5").unlink()
    monkeypatch.chdir(work / "tones")
    assert "prep extract --dataset tones" in only_fault(Path())
    for below in ("native", "native/loudness"):
        monkeypatch.chdir(work / "tones" / below)
        assert verify(Path()).exit_code == 0


def test_shards_may_come_in_any_order(work: Path) -> None:
    folder = DatasetDir(work / "tones")
    native = folder.native("loudness")
    shutil.copy(native / shard_name("valid", 0), native / shard_name("valid", 1))
    (native / shard_name("train", 1)).unlink()
    shards = sorted(folder.path.rglob("*.h5"))
    said = []
    for order in (shards, shards[::-1]):
        check = FolderCheck(folder)
        for path in order:
            check.add(path, check_shard(path).contents)
        said.append((sorted(check.faults()), check.lines()))
    assert said[0] == said[1]
    assert len(said[0][0]) == 2
