"""The image and the batch jobs, as far as can be told without a Docker engine.

Every instruction of the Dockerfile is held to the tree, every command line to the commands, and
every file to the schema or linter of its kind; the scripts run with stand-ins for what they start.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from command_lines import find, logical_lines, parse
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PYPROJECT = (ROOT / "pyproject.toml").read_text()
SCRIPTS = re.findall(r'^(\w+) = "featreg\..+:\w+"$', PYPROJECT, re.MULTILINE)
VOLUMES = ["/work", "/cache", "/data"]

Stage = list[tuple[str, str]]


def stages() -> dict[str, Stage]:
    """Instructions and their arguments by stage; "" holds what stands before the first."""
    found: dict[str, Stage] = {"": []}
    name = ""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in logical_lines(text):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            name = arguments.partition(" AS ")[2] or "final"
            found[name] = []
        found[name].append((instruction, arguments.strip()))
    return found


def every(instruction: str, *names: str) -> list[str]:
    """Arguments of all instructions of a kind, in some stages or in all."""
    return [
        arguments
        for name, stage in stages().items()
        for found, arguments in stage
        if found == instruction and (not names or name in names)
    ]


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a linter says; the test is skipped where it is not installed."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed; it comes with '.[test]'")
    return subprocess.run([path, *arguments], capture_output=True, text=True)


# The Dockerfile.


def test_hadolint_has_nothing_to_say() -> None:
    done = tool("hadolint", ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def sent() -> list[str]:
    """Names at the top of the tree that .dockerignore lets through to a build."""
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"  # all that is not named stays at home
    return [rule[1:] for rule in rules if rule.startswith("!")]


def copied(stage: str) -> list[str]:
    """Sources of a stage's COPY instructions that come from the tree."""
    lines = [words.split() for words in every("COPY", stage)]
    return [source for words in lines if not words[0].startswith("--") for source in words[:-1]]


@pytest.mark.parametrize("stage", ["dependencies", "wheel"])
def test_what_is_copied_is_there_and_is_sent(stage: str) -> None:
    assert copied(stage)
    for source in copied(stage):
        assert (ROOT / source).exists(), source
        assert source in sent(), f".dockerignore keeps {source} away"


def test_the_wheel_is_built_from_all_that_packaging_reads() -> None:
    folders = set(re.findall(r'"featreg\.[\w.]+" = "(\w+)', PYPROJECT))
    (licences,) = re.findall(r"^license-files = (\[.*\])$", PYPROJECT, re.MULTILINE)
    (readme,) = re.findall(r'^readme = "(.+)"$', PYPROJECT, re.MULTILINE)
    for needed in ("pyproject.toml", readme, *json.loads(licences), *folders):
        path = Path(needed)
        assert any(path.is_relative_to(source) for source in copied("wheel")), needed
    assert set(sent()) == {*copied("dependencies"), *copied("wheel")}, "nothing is sent in vain"


def test_stages_are_taken_from_stages_that_there_are() -> None:
    named = re.findall(r"(?:--from=|,from=)(\w+)", " ".join([*every("COPY"), *every("RUN")]))
    assert set(named) == {"dependencies", "wheel"} <= stages().keys()
    for source in re.findall(r"--from=\w+ (\S+)", " ".join(every("COPY"))):
        assert source in " ".join(every("RUN", "dependencies")), source


def test_bases_are_pinned_and_python_is_one_that_featreg_runs_on() -> None:
    (python,) = re.findall(r"^PYTHON=(.+)$", "\n".join(every("ARG", "")), re.MULTILINE)
    assert re.fullmatch(r"3\.\d+\.\d+", python)
    (allowed,) = re.findall(r'^requires-python = "(.+)"$', PYPROJECT, re.MULTILINE)
    assert python in SpecifierSet(allowed)
    for base in every("FROM"):
        assert base.startswith("python:${PYTHON}-slim-bookworm"), base
    for line in every("RUN"):
        for call in re.findall(r"pip (?:--\S+ \S+ )?(?:install|wheel) [^&;|]*", line):
            held = "--constraint constraints.txt" in call or "--no-deps" in call
            assert held, f"not pinned: {call}"


def test_every_variable_is_declared() -> None:
    told = {arguments.partition("=")[0] for arguments in every("ARG", "")}
    for name, stage in stages().items():
        if not name:
            continue
        known = {"PATH"}  # of the base image
        for instruction, arguments in stage:
            used = set(re.findall(r"\$\{?([A-Z_]+)", arguments))
            assert used <= (told if instruction == "FROM" else known), (name, arguments)
            if instruction == "ARG":
                known.add(arguments.partition("=")[0])
            if instruction == "ENV":
                known |= set(re.findall(r"(?:^|\s)([A-Z_]+)=", arguments))


def test_who_runs_it_and_where_it_writes() -> None:
    (user,) = every("USER", "final")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number: clusters ask for a user but root"
    assert json.loads(every("VOLUME", "final")[0]) == VOLUMES
    (environment,) = every("ENV", "final")
    values = dict(word.split("=", 1) for word in environment.split())
    assert (values["FEATREG_WORK"], values["FEATREG_DATA"]) == ("/work", "/data")
    assert values["XDG_CACHE_HOME"] == "/cache"
    caches = {values["NUMBA_CACHE_DIR"], values["MPLCONFIGDIR"]}
    assert all(folder.startswith("/cache/") for folder in caches)
    made = next(line for line in every("RUN", "final") if "install --directory" in line)
    assert made.endswith("--mode 1777 /work /cache /data"), "whoever runs it may write"


def test_the_variables_of_the_image_are_those_that_featreg_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featreg.datasets.registry import default_root
    from featreg.extract.weights import cache

    monkeypatch.setenv("FEATREG_WORK", "/work")
    monkeypatch.setenv("FEATREG_DATA", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(parse(["prep", "align", "--resolution", "0.1"])["work"]) == "/work"
    assert default_root("mtat", tmp_path) == Path("/data/mtat")
    if sys.platform == "linux":
        assert cache() == Path("/cache/featreg/weights")


def test_what_it_starts_is_ours() -> None:
    words = json.loads(every("CMD", "final")[0])
    assert words[0] in SCRIPTS
    assert parse(words) == {}  # --help
    assert not every("ENTRYPOINT"), "prep and train are both on the PATH: none stands in the way"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cuda", "install --constraint constraints.txt torch"),
        ("cpu", "install --constraint constraints.txt --no-deps --index-url INDEX torch"),
        ("tpu", None),
    ],
)
def test_the_build_argument_chooses_torch(
    device: str, expected: str | None, tmp_path: Path
) -> None:
    stand_ins(tmp_path, "pip")
    (choice,) = [line for line in every("RUN", "dependencies") if line.startswith("case")]
    done = run_script(choice, tmp_path, DEVICE=device, TORCH_CPU_INDEX="INDEX")
    if expected is None:
        assert done.returncode == 1
        assert "DEVICE=tpu: expected cuda or cpu" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert [" ".join(words[1:]) for words in started(tmp_path)] == [expected]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the image's Python has tomllib")
def test_the_dependencies_installed_are_those_declared(tmp_path: Path) -> None:
    (line,) = [line for line in every("RUN", "dependencies") if "tomllib" in line]
    listing = line.partition(" > ")[0].replace("python -c", f"{sys.executable} -c")
    done = subprocess.run(["sh", "-c", listing], cwd=ROOT, capture_output=True, text=True)
    (declared,) = re.findall(r"^dependencies = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert done.stdout.split() == re.findall(r'"(.+)"', declared)


# Compose.


def services(*names: str) -> dict[str, Any]:
    """The services of one of the Compose files."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / names[0]).read_text())["services"]
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_are_of_their_schema(name: str) -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / name)
    assert done.returncode == 0, done.stdout


def test_compose_builds_and_mounts_what_there_is() -> None:
    arguments = {arguments.partition("=")[0] for arguments in every("ARG")}
    for name in ("compose.yaml", "compose.gpu.yaml"):
        for service in services(name).values():
            assert service["build"]["args"].keys() <= arguments
    for service in services("compose.yaml").values():
        assert (DEPLOY / service["build"]["context"] / "Dockerfile").is_file()
        assert [mount.rpartition(":")[2] for mount in service["volumes"]] == ["/data", *VOLUMES[:2]]
    assert services("compose.gpu.yaml").keys() == services("compose.yaml").keys()


def test_compose_starts_what_there_is() -> None:
    found = services("compose.yaml")
    for name in SCRIPTS:
        assert found[name]["entrypoint"] == [name]
        assert found[name]["profiles"], f"{name} starts when it is asked for"
    parse(found["scheduler"]["command"])
    worker = parse(found["worker"]["command"])
    host, _, port = worker["scheduler"].removeprefix("tcp://").partition(":")
    assert host in found
    assert port in found[host]["expose"]


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
                assert volume["persistentVolumeClaim"]["claimName"] in claims()
            words = [*container["command"], *container["args"]]
            lines.append([word.replace("$(JOB_COMPLETION_INDEX)", "2") for word in words])
    assert [line[:2] for line in lines] == [
        ["prep", "extract"],
        ["prep", "align"],
        ["train", "run"],
    ]
    parsed = [parse(line) for line in lines]
    assert parsed[2]["seed"] == 2
    assert {found["dataset"] for found in parsed} == {"mtat"}


# Slurm. Stand-ins write down what they were started with.


STAND_IN = """\
#!{python}
import json, os, sys, time
name, log = {name!r}, {log!r}
while name == "prep" and not all(word in open(log).read() for word in os.environ["AFTER"].split()):
    time.sleep(0.01)
with open(log, "a") as file:
    print(json.dumps([name, *sys.argv[1:]]), file=file)
print(name + "-done")
"""


def stand_ins(folder: Path, *names: str) -> None:
    """Commands that write down how they were started; prep waits for those named in AFTER."""
    log = folder / "log"
    log.touch()
    for name in names:
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN.format(python=sys.executable, name=name, log=str(log)))
        path.chmod(0o755)


def started(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def run_script(
    script: str | Path, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(script)] if isinstance(script, Path) else ["bash", "-c", script]
    environment = {"AFTER": "", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **environment}
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30
    )


def batch(name: str, folder: Path, **environment: str) -> list[list[str]]:
    """The commands that a batch script starts, in the order of their names."""
    stand_ins(folder, "prep", "train", "dask", "srun")
    done = run_script(DEPLOY / "slurm" / name, folder, FEATREG_WORK="/scratch/f", **environment)
    assert done.returncode == 0, done.stderr
    return sorted(started(folder))


@pytest.mark.parametrize("path", sorted((DEPLOY / "slurm").iterdir()), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path: Path) -> None:
    done = tool("shellcheck", path)
    assert (done.returncode, done.stdout) == (0, "")


def test_one_node_extracts_aligns_and_verifies(tmp_path: Path) -> None:
    lines = batch("extract.sbatch", tmp_path)
    assert [words[:2] for words in started(tmp_path)] == [
        ["prep", "extract"],
        ["prep", "align"],
        ["prep", "verify"],
    ]
    for words in lines:
        parse(words)


def test_several_nodes_share_a_scheduler(tmp_path: Path) -> None:
    lines = [
        words[words[0] == "srun" :]
        for words in batch("extract-nodes.sbatch", tmp_path, AFTER="dask srun")
    ]
    parsed = {" ".join(words[:2]): parse(words) for words in lines}
    address = parsed["prep extract"]["scheduler"]
    assert parsed["prep align"]["scheduler"] == parsed["dask worker"]["scheduler"] == address
    assert address.endswith(f":{parsed['dask scheduler']['port']}")


def test_the_array_is_every_method_with_every_seed(tmp_path: Path) -> None:
    text = (DEPLOY / "slurm" / "train.sbatch").read_text()
    (last,) = re.findall(r"^#SBATCH --array=0-(\d+)$", text, re.MULTILINE)
    runs = set()
    for task in range(int(last) + 1):
        folder = tmp_path / str(task)
        folder.mkdir()
        (words,) = batch("train.sbatch", folder, SLURM_ARRAY_TASK_ID=str(task))
        found = parse(words)
        runs.add((found["reg"], found["fusion"], found["seed"]))
    methods = {run[:2] for run in runs}
    assert len(methods) == 6
    assert runs == {(*method, seed) for method in methods for seed in range(3)}


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
    assert [words[2:-1] for words in jobs] == [[], *2 * [["--dependency=afterok:sbatch-done"]]]
    missing = run_script(script, tmp_path, FEATREG_WORK="/scratch/f", FEATREG_DATA="")
    assert missing.returncode == 1
    assert "FEATREG_DATA: names the folder" in missing.stderr


# What the files say of themselves.

FILES = [ROOT / "Dockerfile", *sorted(path for path in DEPLOY.rglob("*") if path.is_file())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_comments_can_be_typed(path: Path) -> None:
    comments = re.findall(r"^# ?(.*)$", path.read_text(), re.MULTILINE)
    indented = "\n".join(line for line in comments if line.startswith("  "))
    for line in logical_lines(indented):
        if (words := find(line)) is not None:
            parse(words)
        for name in re.findall(r"(?:--file|--filename) (\S+)", line):
            assert (ROOT / name).is_file(), name
        for name in re.findall(r"--build-arg (\w+)=", line):
            assert name in {arguments.partition("=")[0] for arguments in every("ARG")}


def test_a_wrong_line_would_be_found() -> None:
    with pytest.raises(click.UsageError, match="No such option"):
        parse(find("docker run featreg prep extract --dataset a --features b --speed 3") or [])
    with pytest.raises(click.UsageError, match="No such command"):
        parse(["prep", "fetch"])
    assert find("kubectl apply --filename x.yaml") is None
    assert not any(fnmatch.fnmatch("datasets", rule) for rule in sent() if "*" in rule)
