"""The batch jobs: manifests held to their schema and the commands, scripts run with stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import find, logical_lines, parse
from images import DEPLOY, FAILURES, VOLUMES, every, run_script, stand_ins, started, tool

from featreg.datasets.base import UsageError
from featreg.train.config.method import features_of


class Aligned:
    """The aligned set of what the jobs extract: it knows its features, and no more."""

    there = ("vggish", "openl3")

    def features(self, wanted: list[str]) -> tuple[str, ...]:
        assert set(wanted) <= set(self.there), wanted
        return tuple(wanted) or self.there


def heard(found: dict[str, Any]) -> tuple[str, ...]:
    """The features that a `train run` with these parameters would use; it may refuse them."""
    return features_of(found["reg"], found["fusion"], found["features"], Aligned())


# Clips that may fail before what waits for the extraction is given up; deploy.md says why.
FORGIVEN = 20

# Kubernetes.

MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def pods() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Job":
                yield document["spec"]["template"]["spec"]


def claims() -> set[str]:
    found = [doc for path in MANIFESTS for doc in yaml.safe_load_all(path.read_text())]
    return {doc["metadata"]["name"] for doc in found if doc["kind"] == "PersistentVolumeClaim"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_of_their_schema(path: Path) -> None:
    done = tool("kubernetes-validate", "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_jobs_run_our_commands_with_our_folders() -> None:
    lines = []
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert f"{pod['securityContext']['runAsUser']}:1000" == every("USER", "final")[0]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                if mount["mountPath"] == "/dev/shm":
                    continue
                assert mount["mountPath"] in VOLUMES
                writes = container["name"] == "download"
                assert (mount["mountPath"] != "/data") or writes != mount.get("readOnly", False)
                assert volume["persistentVolumeClaim"]["claimName"] in claims()
            words = [*container["command"], *container["args"]]
            lines.append([word.replace("$(JOB_COMPLETION_INDEX)", "2") for word in words])
    assert [line[:2] for line in lines] == [
        ["prep", "download"],
        ["prep", "extract"],
        ["prep", "align"],
        ["train", "run"],
    ]
    download, extract, align, run = [parse(line) for line in lines]
    assert tuple(extract["features"].split(",")) == heard(run) == Aligned.there
    assert run["seed"] == 2
    assert download["name"] == "mtat"
    assert {found["dataset"] for found in (extract, align, run)} == {"mtat"}
    assert extract["device"] == "cuda"
    assert extract["max_failures"] == FORGIVEN


def test_manifests_are_applied_in_their_order() -> None:
    page = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    applied = re.findall(r"^kubectl apply --filename deploy/kubernetes/(\S+)$", page, re.MULTILINE)
    assert applied == ["volumes.yaml", "download.yaml", "extract.yaml", "train.yaml"]
    assert sorted(applied) == [path.name for path in MANIFESTS]


def test_memory_that_is_limited_is_shared_by_as_many_workers_as_cpus() -> None:
    for pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            limits = container["resources"]["limits"]
            if "nvidia.com/gpu" in limits or container["args"][0] == "download":
                continue  # a worker each, or none
            parsed = parse([*container["command"], *container["args"]])
            assert (
                str(parsed["workers"]) == limits["cpu"] == container["resources"]["requests"]["cpu"]
            )


# Slurm. Stand-ins write down what they were started with.


def batch(name: str, folder: Path, **environment: str) -> list[list[str]]:
    """The commands that a batch script starts, in the order of their names."""
    stand_ins(folder, "prep", "train", "dask", "srun")
    environment = {"FEATREG_WORK": "/scratch/f", **environment}
    done = run_script(DEPLOY / "slurm" / name, folder, **environment)
    assert done.returncode == 0, done.stderr
    return sorted(started(folder))


@pytest.mark.parametrize("path", sorted((DEPLOY / "slurm").iterdir()), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path: Path) -> None:
    done = tool("shellcheck", path)
    assert (done.returncode, done.stdout) == (0, "")


STEPS = [["prep", "extract"], ["prep", "align"], ["prep", "verify"]]


def test_one_node_extracts_aligns_and_verifies(tmp_path: Path) -> None:
    batch("extract.sbatch", tmp_path)
    lines = started(tmp_path)
    assert [words[:2] for words in lines] == STEPS
    extract, *_ = [parse(words) for words in lines]
    assert extract["device"] == "cuda", "a job that waited for GPUs must not do without"
    assert extract["max_failures"] == FORGIVEN


NODES = DEPLOY / "slurm" / "extract-nodes.sbatch"


def test_several_nodes_share_a_scheduler(tmp_path: Path) -> None:
    (cpus,) = re.findall(r"^#SBATCH --cpus-per-task=(\d+)$", NODES.read_text(), re.MULTILINE)
    slurm = {"SLURM_JOB_ID": "7654321", "SLURM_CPUS_PER_TASK": cpus}
    stand_ins(tmp_path, "openssl")
    work = tmp_path / "work"
    lines = batch(NODES.name, tmp_path, AFTER="dask srun", FEATREG_WORK=str(work), **slurm)
    assert [words[:2] for words in started(tmp_path) if words[0] == "prep"] == STEPS
    (workers,) = [words for words in lines if words[0] == "srun"]
    assert workers[1] == f"--cpus-per-task={cpus}", "srun does not take it from the head"
    lines = [words[words.index("dask") :] if words is workers else words for words in lines]
    parsed = {" ".join(words[:2]): parse(words) for words in lines if words[0] != "openssl"}
    address = parsed["prep extract"]["scheduler"]
    assert parsed["prep align"]["scheduler"] == parsed["dask worker"]["scheduler"] == address
    assert address.endswith(f":{parsed['dask scheduler']['port']}")
    assert 20000 <= int(parsed["dask scheduler"]["port"]) < 50000
    assert parsed["dask worker"]["nthreads"] == int(cpus), "decoders beside each GPU"
    assert parsed["dask worker"]["memory_limit"] == "0", "Dask's own is too small for OpenL3"
    assert parsed["prep extract"]["device"] == "cuda", "auto does not look for its workers' GPUs"
    assert parsed["prep extract"]["max_failures"] == FORGIVEN
    before, _, _ = NODES.read_text().partition("$run dask scheduler")
    assert f"export {FAILURES}=1\n" in before
    # Nobody else can talk to the scheduler.
    assert (address[:6], parsed["dask scheduler"]["protocol"]) == ("tls://", "tls")
    assert not list(work.iterdir()), "the key is gone with the job"


# It does the part of `prep extract`: what the cluster is, and who is let in.
LOOK = """\
#!{python}
import os, sys
from pathlib import Path
from distributed import Client, Security
if sys.argv[1] == "extract":
    address = sys.argv[sys.argv.index("--scheduler") + 1]
    with Client(address, timeout=30) as client:
        client.wait_for_workers(1, timeout=60)
        (worker,) = client.scheduler_info()["workers"].values()
        print("worker", worker["nthreads"], worker["memory_limit"], worker["nanny"][:6])
    for path in sorted(Path(os.environ["FEATREG_WORK"]).rglob("*")):
        print(oct(path.stat().st_mode & 0o777), path.name)
    key, cert = "stranger.key", "stranger.cert"
    new = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=stranger"
    assert os.system(f"{{new}} -keyout {{key}} -out {{cert}}") == 0
    for scheme, security in (
        ("tcp", Security(require_encryption=False)),
        ("tls", Security(tls_ca_file=cert, tls_client_key=key, tls_client_cert=cert)),
    ):
        try:
            Client(address.replace("tls:", scheme + ":"), security=security, timeout=3)
        except (OSError, ValueError) as error:
            print("stranger", scheme, "refused")
"""


@pytest.mark.slow
def test_only_the_job_itself_can_use_its_scheduler(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    programs = {
        "srun": '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
        "hostname": "#!/bin/bash\necho localhost\n",
        "dask": f'#!/bin/bash\nexec {sys.executable} -m dask "$@"\n',
        "prep": LOOK.format(python=sys.executable),
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "FEATREG_WORK": str(tmp_path / "work"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_PER_TASK": "2",
    }
    done = subprocess.run(
        ["bash", str(NODES)],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "worker 2 0 tls://",
        f"0o700 tls-{os.getpid()}",
        "0o600 cert.pem",
        "0o600 key.pem",
        "stranger tcp refused",
        "stranger tls refused",
    ]


def test_the_array_is_every_method_with_every_seed(tmp_path: Path) -> None:
    text = (DEPLOY / "slurm" / "train.sbatch").read_text()
    (last,) = re.findall(r"^#SBATCH --array=0-(\d+)$", text, re.MULTILINE)
    runs = set()
    for task in range(int(last) + 1):
        folder = tmp_path / str(task)
        folder.mkdir()
        (words,) = batch("train.sbatch", folder, SLURM_ARRAY_TASK_ID=str(task))
        found = parse(words)
        method = found["reg"], found["fusion"]
        baseline = method == ("none", "none")
        assert heard(found) == (() if baseline else Aligned.there), words
        runs.add((*method, found["seed"]))
    methods = {run[:2] for run in runs}
    assert len(methods) == 6
    assert runs == {(*method, seed) for method in methods for seed in range(3)}


def test_the_container_of_a_cluster_can_write_where_the_image_does() -> None:
    page = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    submit = (DEPLOY / "slurm" / "submit.sh").read_text()
    for text in (submit, page):
        line = re.search(r'FEATREG_RUN="apptainer exec .*--bind (\S+) (\S+)"', text)
        assert line
        (cache,) = [bind for bind in line[1].split(",") if ":" in bind]
        assert cache.endswith(":/cache"), "the image writes there, and a .sif is read-only"
        assert line[2].startswith("/"), "jobs start in any folder"
    lines = list(logical_lines(page))
    assert f"apptainer build {line[2]} docker-daemon://featreg:latest" in lines
    assert f"mkdir -p {cache.removesuffix(':/cache')}" in lines
    (fetch,) = [line for line in lines if line.startswith("$FEATREG_RUN")]
    assert parse(find(fetch) or [])["everything"], "nodes that compute have no network"


def test_the_page_says_how_many_clips_may_fail() -> None:
    page = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    assert f"`--max-failures {FORGIVEN}`" in page


def test_a_method_that_train_would_refuse_is_found() -> None:
    line = "train run --dataset mtat --reg none --features vggish+openl3"
    with pytest.raises(UsageError, match="--features"):
        heard(parse(line.split()))


def test_the_comparison_is_of_that_dataset(tmp_path: Path) -> None:
    (words,) = batch("compare.sbatch", tmp_path)
    assert parse(words)["dataset"] == "mtat"


def test_jobs_follow_each_other(tmp_path: Path) -> None:
    stand_ins(tmp_path, "sbatch")
    script = DEPLOY / "slurm" / "submit.sh"
    assert os.access(script, os.X_OK)
    done = run_script(script, tmp_path, FEATREG_WORK="/scratch/f", FEATREG_DATA="/data")
    assert done.returncode == 0, done.stderr
    jobs = started(tmp_path)
    assert [Path(words[-1]).name for words in jobs] == [
        "extract.sbatch",
        "train.sbatch",
        "compare.sbatch",
    ]
    assert all(Path(words[-1]).is_file() for words in jobs)
    follows = ["--kill-on-invalid-dep=yes", "--dependency=afterok:sbatch-done"]
    assert [words[2:-1] for words in jobs] == [[], follows, follows]
    missing = run_script(script, tmp_path, FEATREG_WORK="/scratch/f", FEATREG_DATA="")
    assert missing.returncode == 1
    assert "FEATREG_DATA: names the folder" in missing.stderr
