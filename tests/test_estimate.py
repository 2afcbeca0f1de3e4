"""What an extraction and an alignment take: told before, and measured after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from extractions import AUDIO, LOUDNESS, REQUEST, extract
from kit import tone, write
from loudness import LoudnessConfig

from featreg.datasets.base import Dataset, FeatregError
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.alignment.resample_frames import Mode
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.dry_run import describe
from featreg.extract.pipeline.estimate import alignment_space, estimate
from featreg.extract.pipeline.plan import make_plan

pytest_plugins = ("extraction_fixtures",)

ONE = Workers(1, 1)


def test_the_accounts_say_where_the_time_went(dataset: Dataset, tmp_path: Path) -> None:
    summary = extract(dataset, tmp_path)
    assert list(summary.stages) == ["read", "decode", "resample", "network", "write"]
    assert all(seconds > 0 for seconds in summary.stages.values())
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert summary.audio_s == pytest.approx(seconds, abs=1e-2)
    held = [path.stat().st_size for path in (tmp_path / "tones").rglob("*.h5")]
    assert summary.written == sum(held)
    # No Python with numpy is smaller, and no test machine's larger.
    assert all(3e7 < peak < 1e11 for peak in summary.peak_bytes.values())


def test_what_a_run_took_is_what_the_next_one_expects(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    plan = make_plan(dataset, folder, REQUEST)
    before = estimate(dataset, folder, plan)
    assert not before.learnt
    # Lengths as the files declare them: 16 kHz audio of 2 bytes, and 8 bytes each half second.
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert before.bytes == pytest.approx(seconds * (32000 + 16), rel=1e-3)
    summary = extract(dataset, tmp_path)
    for path in tmp_path.rglob("*.h5"):
        path.unlink()
    after = estimate(dataset, folder, plan)
    assert after.learnt
    assert after.audio_h * 3600 == pytest.approx(summary.audio_s, rel=1e-3)
    assert after.bytes == pytest.approx(summary.written, rel=0.03)
    spent = sum(seconds for stage, seconds in summary.stages.items() if stage != "write")
    # A clip of 1.3 s has two whole rows of half a second, not 2.6.
    assert after.core_h * 3600 == pytest.approx(spent, rel=0.4)
    extract(dataset, tmp_path)
    nothing = estimate(dataset, folder, make_plan(dataset, folder, REQUEST))
    assert (nothing.bytes, nothing.core_h) == (0, 0)


def test_a_run_that_the_disk_cannot_hold_does_not_start(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DatasetDir(tmp_path / "tones")
    needed = estimate(dataset, folder, make_plan(dataset, folder, REQUEST))
    needed.space(folder, ONE).check()
    monkeypatch.setattr("featreg.extract.pipeline.space.free_bytes", lambda path: needed.bytes // 3)
    words = r"tones: disk: about 0\.6 MB needed, 0\.2 MB free: does not suffice; free some"
    with pytest.raises(FeatregError, match=words):
        needed.space(folder, ONE).check()


def test_what_is_there_already_is_not_expected_again(dataset: Dataset, tmp_path: Path) -> None:
    folder = DatasetDir(tmp_path / "tones")
    written = extract(dataset, tmp_path).written
    # A feature that is done anew takes the place of the old one.
    louder = replace(REQUEST, features=(AUDIO, replace(LOUDNESS, config=LoudnessConfig(2.0))))
    anew = estimate(dataset, folder, make_plan(dataset, folder, louder))
    assert anew.audio_h > 0
    assert anew.bytes < 0.3 * sum(path.stat().st_size for path in folder.path.rglob("loudness/*"))
    write(dataset.clips[4].path, tone(1.7, 22050, seed=99), 22050)  # as long as before
    plan = make_plan(dataset, folder, REQUEST)
    assert [clip.clip_id for clip in plan.jobs[0].computed("loudness")] == ["train-4"]
    one = estimate(dataset, folder, plan)
    assert one.audio_h * 3600 == pytest.approx(1.7, abs=1e-3)
    seconds = sum(1.3 + 0.1 * k for count in (7, 2, 3) for k in range(count))
    assert one.bytes == pytest.approx(written * 1.7 / seconds, rel=0.05)
    assert one.anew == plan.jobs[0].path("audio").stat().st_size
    assert "audio: 1 shards to do (train-00001.h5), 1 clips: 1 clips are new or" in describe(plan)


@pytest.mark.parametrize("mode", ["repeat", "area", "linear"])
def test_an_alignment_takes_the_room_that_was_told(
    mode: Mode, dataset: Dataset, tmp_path: Path
) -> None:
    folder = DatasetDir(tmp_path / "tones")
    extract(dataset, tmp_path)
    plan = plan_alignment(folder, (), 0.1, mode)
    space = alignment_space(folder, plan, ONE)
    written = sum(align_shard(job) for job in plan.jobs)
    # A shard's frame and its last chunk of audio, half empty, are much beside such small ones.
    assert space.least < space.likely < written < space.likely + 64e3 * len(plan.jobs)
    assert alignment_space(folder, plan_alignment(folder, (), 0.1, mode), ONE).likely == 0
