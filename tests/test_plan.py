"""What is computed again, why, and into which shard: every decision of the extraction's plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from extractions import AUDIO, LOUDNESS
from loudness import Loudness
from native_shards import any_clip, write_job

from featreg.datasets.audio.decode import REVISION
from featreg.datasets.base import Clip, Dataset
from featreg.datasets.shards.native import NativeHeader
from featreg.datasets.shards.timing import FrameTiming
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.pipeline.plan import Plan, Request, difference, header_of, make_plan

REQUEST = Request((AUDIO, LOUDNESS), shard_clips=2)
HEADER = NativeHeader(
    dataset="tones",
    feature="loudness",
    dim=2,
    dtype="float32",
    scale=1.0,
    offset=0.0,
    timing=FrameTiming(0.5, 0.5, 0.25),
    sample_rate=8000,
    weights_sha256="",
    settings=LOUDNESS.extractor().settings | {"resampler": "soxr_hq", "audio_revision": REVISION},
)


class Work:
    """A dataset of files a to e, and its folder."""

    def __init__(self, folder: Path, names: str = "abcde") -> None:
        self.source = folder / "source"
        self.clips = [any_clip(self.source, name) for name in names]
        self.folder = DatasetDir(folder / "tones")

    def plan(self, request: Request = REQUEST, **options: Any) -> Plan:
        return make_plan(
            Dataset("tones", ("low", "high"), tuple(self.clips)), self.folder, request, **options
        )

    def run(self, failed: Mapping[str, str] | None = None, **options: Any) -> Plan:
        """Write what is planned, and remove what is obsolete then."""
        plan = self.plan(**options)
        for job in plan.jobs:
            write_job(job, failed)
        for path in plan.obsolete:
            path.unlink()
        return plan

    def edit(self, *names: str) -> None:
        for name in names:
            path = self.source / name
            path.write_bytes(path.read_bytes() * 2)

    def add(self, names: str) -> None:
        self.clips += [any_clip(self.source, name) for name in names]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def ids(clips: Sequence[Clip]) -> str:
    return "".join(clip.clip_id for clip in clips)


def jobs(plan: Plan) -> list[tuple[str, dict[str, int]]]:
    """The clips and the shards' numbers of each job."""
    return [(ids(job.clips), dict(job.numbers)) for job in plan.jobs]


def both(number: int) -> dict[str, int]:
    return {"audio": number, "loudness": number}


def names(paths: Sequence[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in paths]


def test_in_a_new_folder_all_is_to_do(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work.source.parent)
    work.clips = [replace(clip, path=Path("source") / clip.clip_id) for clip in work.clips]
    plan = work.plan()
    assert jobs(plan) == [("ab", both(0)), ("cd", both(1)), ("e", both(2))]
    assert plan.reasons == {name: {"not extracted yet": 5} for name in ("audio", "loudness")}
    assert (plan.done.durations, plan.done.failures, plan.obsolete) == ({}, (), ())
    assert plan.limits == {"train": None, "valid": None, "test": None}
    for job in plan.jobs:
        assert job.request == REQUEST
        assert job.headers["loudness"] == HEADER
        assert job.folder == work.folder
        for clip in job.clips:  # labels stay here, and paths hold in any working directory
            assert len(clip.label) == len(clip.label_mask) == 0
            assert clip.path == work.source / clip.clip_id
    second = plan.jobs[1]
    assert second.path("audio") == work.folder.path / "native" / "audio" / "00001.h5"
    assert str(second) == "shard audio 00001, loudness 00001"


def test_what_is_done_is_not_planned_again(work: Work) -> None:
    work.run(failed={"b": "decode"})
    plan = work.run()
    assert (plan.jobs, plan.reasons, plan.obsolete) == ((), {}, ())
    assert plan.done.durations == dict.fromkeys("acde", 1.5)
    assert {(each.clip_id, each.stage) for each in plan.done.failures} == {("b", "decode")}
    assert len(plan.done.failures) == 2  # one of each feature


def test_splits_and_limits_choose_the_first_clips(work: Work) -> None:
    for k, split in enumerate(("train", "valid", "train", "valid", "valid")):
        work.clips[k] = replace(work.clips[k], split=split)  # type: ignore[arg-type]
    plan = work.plan(splits=("valid",), limit=2)
    assert jobs(plan) == [("bd", both(0))]
    assert plan.limits == {"valid": 2}
    assert jobs(work.plan(limit=1)) == [("ab", both(0))]
    assert jobs(work.plan(splits=("train",))) == [("ac", both(0))]


def test_clips_that_lack_the_same_features_share_jobs(work: Work) -> None:
    work.run(request=replace(REQUEST, features=(AUDIO,)), limit=3)
    plan = work.plan()
    assert jobs(plan) == [
        ("ab", {"loudness": 0}),
        ("c", {"loudness": 1}),
        ("de", {"audio": 2, "loudness": 2}),
    ]
    assert [spec.name for spec in plan.jobs[0].request.features] == ["loudness"]
    assert plan.reasons["audio"] == {"not extracted yet": 2}
    assert plan.reasons["loudness"] == {"not extracted yet": 5}
    # A clip counts as decoded where one feature has it.
    assert plan.done.durations == dict.fromkeys("abc", 1.5)


def test_jobs_come_in_the_order_of_the_clips(work: Work) -> None:
    work.run(request=replace(REQUEST, features=(AUDIO,)))
    work.edit("a")
    assert [clips for clips, _ in jobs(work.plan())] == ["a", "bc", "de"]


def test_a_changed_file_goes_to_a_shard_above_that_which_held_it(work: Work) -> None:
    work.run()
    work.edit("c", "e")
    plan = work.plan()
    assert jobs(plan) == [("ce", both(3))]
    assert plan.reasons["audio"] == {"the file or the excerpt has changed": 2}
    assert names(plan.obsolete) == ["audio/00002.h5", "loudness/00002.h5"]  # that of e alone
    work.run()
    assert work.plan().jobs == ()
    work.edit("d")
    plan = work.plan()
    assert jobs(plan) == [("d", both(2))]  # the number that became free, above 1 that held d
    assert names(plan.obsolete) == ["audio/00001.h5", "loudness/00001.h5"]
    work.edit("a", "e")
    assert jobs(work.plan()) == [("ad", both(2)), ("e", both(4))]


def test_another_excerpt_is_computed(work: Work) -> None:
    work.run()
    work.clips[3] = replace(work.clips[3], start_s=0.5)
    assert jobs(work.plan()) == [("d", both(3))]


def test_a_feature_that_depends_on_more_than_the_audio(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.run()
    monkeypatch.setattr(
        type(LOUDNESS.extractor()), "fingerprint", lambda self, clip, audio: audio + clip.clip_id
    )
    assert jobs(work.plan()) == [
        ("ab", {"loudness": 3}),
        ("cd", {"loudness": 4}),
        ("e", {"loudness": 5}),
    ]


def test_an_interrupted_run_writes_what_it_would_have_written(work: Work) -> None:
    plan = work.plan()
    for k in (0, 2):
        write_job(plan.jobs[k])
    assert jobs(work.plan()) == [("cd", both(1))]
    work.add("fgh")
    assert jobs(work.plan()) == [("cd", both(1)), ("fg", both(3)), ("h", both(4))]


def test_a_free_number_below_a_changed_clip_is_kept_for_new_ones(work: Work) -> None:
    plan = work.plan()
    for k in (1, 2):
        write_job(plan.jobs[k])
    work.edit("c")
    work.clips = [*work.clips[2:], *work.clips[:2]]  # c, d, e, a, b
    request = replace(REQUEST, shard_clips=1)
    assert jobs(work.plan(request)) == [("c", both(3)), ("a", both(0)), ("b", both(4))]


@pytest.mark.parametrize("stage", ["decode", "silence"])
def test_failed_clips_are_tried_again_on_request_alone(work: Work, stage: str) -> None:
    work.run(failed={"b": stage})
    assert work.plan().jobs == ()
    plan = work.plan(retry_failed=True)
    assert jobs(plan) == [("b", both(3))]
    assert plan.reasons["loudness"] == {"failed before (--retry-failed)": 1}
    assert plan.done.failures == ()
    kept = work.plan(replace(REQUEST, keep_silent=True))
    assert [clips for clips, _ in jobs(kept)] == (["b"] if stage == "silence" else [])
    if stage == "silence":
        assert kept.reasons["audio"] == {"silent (--keep-silent)": 1}
    write_job(plan.jobs[0])
    assert work.plan(retry_failed=True).jobs == ()
    assert work.plan().done.durations == dict.fromkeys("abcde", 1.5)


def test_another_setting_is_the_reason(work: Work) -> None:
    work.run()
    plan = work.run(request=replace(REQUEST, resampler="soxr_vhq"))
    assert [clips for clips, _ in jobs(plan)] == ["ab", "cd", "e"]
    assert plan.reasons["audio"] == {"resampler was soxr_hq, now soxr_vhq": 5}
    assert len(plan.obsolete) == 6
    assert {number for job in plan.jobs for number in job.numbers.values()} == {3, 4, 5}


def test_shards_of_other_settings_stay_while_a_clip_needs_them(work: Work) -> None:
    work.run()
    plan = work.plan(replace(REQUEST, resampler="soxr_vhq"), limit=3)
    assert names(plan.obsolete) == ["audio/00000.h5", "loudness/00000.h5"]


def test_shards_of_clips_that_are_gone_are_obsolete(work: Work) -> None:
    work.run()
    work.clips = work.clips[:3]
    plan = work.plan()
    assert plan.jobs == ()
    assert names(plan.obsolete) == ["audio/00002.h5", "loudness/00002.h5"]


def test_a_damaged_shard_is_the_reason_and_written_over(work: Work) -> None:
    work.run()
    path = work.folder.native("audio") / "00001.h5"
    path.write_bytes(b"no shard")
    plan = work.plan()
    assert jobs(plan) == [("cd", {"audio": 1})]
    (reason,) = plan.reasons["audio"]
    assert str(path) in reason
    assert plan.obsolete == ()
    work.clips = work.clips[:2]  # where nothing takes its place, it goes
    assert names(work.plan().obsolete) == [
        "audio/00002.h5",
        "audio/00001.h5",
        "loudness/00001.h5",
        "loudness/00002.h5",
    ]


def test_the_header_says_all_that_changes_a_number() -> None:
    assert header_of(LOUDNESS.extractor(), "tones", REQUEST) == HEADER
    sizes = SimpleNamespace(**{name: getattr(LOUDNESS.extractor(), name) for name in (
        "name", "dim", "dtype", "quantization", "timing", "sample_rate", "request")},
        settings={"sizes": (1, 2)}, missing_weights=("net",))  # fmt: skip
    header = header_of(sizes, "tones", REQUEST)  # type: ignore[arg-type]
    assert header.settings["sizes"] == [1, 2]  # as JSON gives it back
    assert header.weights_sha256 == "not here"
    assert isinstance(LOUDNESS.extractor(), Loudness)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"settings": {**HEADER.settings, "gain": 2.0}}, "gain was 1.0, now 2.0"),
        ({"weights_sha256": "other"}, "weights"),
        ({"weights_sha256": "not here"}, ""),
        ({"weights_sha256": "not here", "dim": 3}, "dimensions"),
        ({"dataset": "noises"}, "tones"),
        ({"dim": 3}, "dimensions"),
        ({"timing": FrameTiming(0.5, 0.5, 0.0)}, "timing"),
    ],
)
def test_differences_of_headers(change: dict[str, Any], said: str) -> None:
    found = difference(HEADER, replace(HEADER, **change))
    assert bool(found) == bool(said)
    assert said in found
