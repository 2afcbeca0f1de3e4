"""The image and Compose, as far as can be told without a Docker engine.

Every instruction of the Dockerfile is held to the tree, every command line to the commands, and
every file to the schema or linter of its kind.
"""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from command_lines import find, logical_lines, parse
from images import (
    DEPLOY,
    FAILURES,
    PYPROJECT,
    ROOT,
    SCRIPTS,
    VOLUMES,
    every,
    run_script,
    stages,
    stand_ins,
    started,
    tool,
)
from packaging.specifiers import SpecifierSet

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
    from featreg.datasets.collections.registry import default_root
    from featreg.extract.weights.cache import cache

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
    (onnx,) = re.findall(r"^onnx = (\[.+\])$", PYPROJECT, re.MULTILINE)
    # What `train export` writes unless it is told otherwise can be written.
    assert parse(["train", "export", "some-run"])["format"] == "onnx"
    assert done.stdout.split() == [*re.findall(r'"(.+)"', declared), *json.loads(onnx)]


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
    assert found["scheduler"]["environment"] == {FAILURES: "1"}
    threads = []
    for name in ("compose.yaml", "compose.gpu.yaml"):
        command = services(name)["worker"]["command"]
        worker = parse([re.sub(r"\$\{\w+:-(.+)\}", r"\1", word) for word in command])
        host, _, port = worker["scheduler"].removeprefix("tcp://").partition(":")
        assert host in found
        assert port in found[host]["expose"]
        assert worker["memory_limit"] == "0", "Dask's own is too small for OpenL3"
        threads.append(worker["nthreads"])
    assert threads == [1, 8], "beside a GPU the other cores decode"
    assert all("ports" not in service for service in found.values()), "for its own network alone"


def test_clusters_give_up_a_shard_as_early_as_local_workers_do() -> None:
    from dask.config import collect_env, get

    from featreg.extract.pipeline.dask_pool import _SETTINGS

    name = "distributed.scheduler.allowed-failures"
    assert FAILURES in (ROOT / "docs" / "deploy.md").read_text()
    assert get(name, config=collect_env({FAILURES: "1"})) == _SETTINGS[name]


@pytest.mark.parametrize("path", [ROOT / "docs" / "deploy.md", DEPLOY / "compose.yaml"])
def test_folders_are_made_before_docker_makes_them(path: Path) -> None:
    mounts = services("compose.yaml")["prep"]["volumes"]
    folders = [re.findall(r":-\.\./([\w-]+)}", mount)[0] for mount in mounts]
    made, _, started = path.read_text().partition("docker compose --file")
    assert f"mkdir -p {' '.join(folders)}\n" in made
    assert started


def test_lines_for_containers_name_their_dataset_and_fetch_it_first() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    for start in ("docker run", "docker compose --file deploy/compose.yaml run"):
        lines = [line for line in logical_lines(page) if line.startswith(start)]
        parsed = [parse(find(line) or []) for line in lines]
        # After `make demo` there is a second dataset in ./featreg-work.
        assert [found.get("dataset", found.get("name")) for found in parsed] == ["mtat"] * 4
        assert " prep download " in lines[0]
    mounts = [re.findall(r"--volume \"?(\S+?)\"? ", line) for line in logical_lines(page)]
    data = [mount for line in mounts for mount in line if ":/data" in mount]
    assert data == ["$PWD/featreg-data:/data", *2 * ["$PWD/featreg-data:/data:ro"]]


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
