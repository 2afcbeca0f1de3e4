"""Workers: how many, what reaches them, and what they build once."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from kit import make_dataset
from threadpoolctl import threadpool_info

from featreg.datasets.base import Clip, Dataset, FeatregError, UsageError
from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.extractors.musicnn import Musicnn
from featreg.extract.extractors.registry import FeatureSpec, make_config
from featreg.extract.pipeline import dask_pool as cluster
from featreg.extract.pipeline.dask_pool import Workers, pack, plan_workers, run_jobs, still_wanted
from featreg.extract.pipeline.plan import Request, ShardJob, make_plan
from featreg.extract.pipeline.shard_job import extract_shard
from featreg.extract.weights.cache import locate

WEIGHTS = tuple((name, locate(name, {})) for name in Musicnn.weight_names(Musicnn.Config()))
FEATURES = (
    FeatureSpec("audio", make_config("audio", {})),
    FeatureSpec("musicnn", make_config("musicnn", {}), WEIGHTS),
)
MTAT = "f/american_baroque-dances_and_suites_of_rameau_and_couperin-{:02d}-le_rossignol-{}-{}.mp3"


@pytest.mark.parametrize("cores", [1, 2, 7, 64])
@pytest.mark.parametrize("asked", [None, 1, 3, 100])
@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_workers_times_threads_never_exceed_the_cores(
    cores: int, asked: int | None, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CPU_COUNT", cores)
    team = plan_workers(50, asked, None, gpus)
    assert team.threads >= 1
    if asked is None:
        assert team.count == min(gpus or cores, 50)  # one a GPU
    else:
        assert team.count == min(asked, max(cores, gpus))
    assert team.count * team.threads <= max(cores, gpus)


def test_more_workers_than_cores_are_not_started_and_said_to_be_too_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "CPU_COUNT", 2)
    monkeypatch.setattr(logging.getLogger("featreg"), "propagate", True)
    assert plan_workers(50, 2, None) == Workers(2, 1)
    assert caplog.text == ""
    assert plan_workers(50, 100, None) == Workers(2, 1)
    assert "--workers 100: expected at most 2, one per core; using 2" in caplog.text


def test_what_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--workers .* --scheduler"):
        plan_workers(1, 2, "tcp://somewhere:8786")
    with pytest.raises(UsageError, match="--workers 0: expected at least 1"):
        plan_workers(1, 0, None)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
    team = Workers(0, 0, "tcp://127.0.0.1:9")
    with pytest.raises(FeatregError, match=r"--scheduler tcp://127\.0\.0\.1:9: "):
        list(run_jobs(str, [1], team))


def test_nothing_to_do_needs_no_scheduler() -> None:
    assert list(run_jobs(str, [], Workers(0, 0, "tcp://127.0.0.1:9"))) == []


def test_a_scheduler_without_workers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE_S", 0.1)
    with (
        LocalCluster(n_workers=0, dashboard_address=None, processes=False) as empty,
        pytest.raises(FeatregError, match=r"no worker within 0.1 s; start some with `dask worker"),
    ):
        list(run_jobs(str, [1], Workers(0, 0, empty.scheduler_address)))


def test_25_000_clips_travel_in_less_than_a_megabyte(tmp_path: Path) -> None:
    nothing = np.empty(0, np.uint8)
    clips = tuple(
        Clip(
            f"{k + 2}",
            Path("/data/magnatagatune") / MTAT.format(k % 19 + 1, 29 * k % 600, 29 * k % 600 + 29),
            "train",
            nothing,
            nothing,
        )
        for k in range(25_000)
    )
    folder = DatasetDir(tmp_path / "mtat")
    jobs = make_plan(Dataset("mtat", ("guitar",), clips), folder, Request(FEATURES)).jobs
    assert sum(len(job.clips) for job in jobs) == 25_000
    assert sum(len(pack(extract_shard, job)) for job in jobs) < 1e6


def where(job: int) -> tuple[int, str, int]:
    time.sleep(0.2)
    # What multiplies matrices in numpy: beside the network's threads it must not have its own.
    products = max(pool["num_threads"] for pool in threadpool_info())
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), products


def test_each_gpu_has_one_worker_and_numpy_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the GPUs that this process may see, each worker sees one.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    outcomes = {outcome for _, outcome in run_jobs(where, range(8), Workers(2, 1, gpus=2))}
    assert sorted(gpu for _, gpu, _ in outcomes) == ["5", "7"]
    assert {products for _, _, products in outcomes} == {1}


def build(job: ShardJob) -> tuple[int, int, int, set[int]]:
    """Do a shard; say where, how many shards were done there, and which objects did it."""
    extract_shard(job)
    _done.append(job.numbers["audio"])
    extractor = job.request.features[1].extractor()
    assert isinstance(extractor, Musicnn)
    _networks.add(id(extractor._network))
    return os.getpid(), len(_done), id(extractor), _networks


_done: list[int] = []
_networks: set[int] = set()


def test_the_network_is_built_once_in_each_worker(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "source", {"train": 6})
    request = Request(FEATURES, shard_clips=1)
    jobs = make_plan(dataset, DatasetDir(tmp_path / "tones"), request).jobs
    jobs[0].folder.path.mkdir(parents=True, exist_ok=True)
    outcomes = [outcome for _, outcome in run_jobs(build, jobs, Workers(1, 1))]
    assert sorted(done for _, done, _, _ in outcomes) == [1, 2, 3, 4, 5, 6]
    assert len({pid for pid, _, _, _ in outcomes}) == 1
    assert len({extractor for _, _, extractor, _ in outcomes}) == 1
    assert {len(networks) for _, _, _, networks in outcomes} == {1}


def wait_and_ask(begun: Path, go: Path, answer: Path) -> None:
    """Say that it began, wait for a file, and answer whether anybody still wants this."""
    begun.touch()
    while not go.exists():
        time.sleep(0.01)
    answer.write_text(str(still_wanted()))


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_waited_for_its_turn_knows_whether_it_is_still_wanted(
    cancelled: bool, tmp_path: Path
) -> None:
    begun, go, answer = (tmp_path / name for name in ("begun", "go", "answer"))
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=None, processes=False
        ) as cluster,
        Client(cluster) as client,
    ):
        future = client.submit(wait_and_ask, begun, go, answer, pure=False)
        wait_for(begun)
        if cancelled:
            future.cancel()
            time.sleep(1)
        go.touch()
        wait_for(answer)
    assert answer.read_text() == str(not cancelled)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and (path.name == "begun" or path.read_text())):
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.01)


def test_without_dask_every_job_is_wanted() -> None:
    assert still_wanted()
