"""The workflow runs what a newcomer types, on every Python that is supported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_lines import find, parse

import featreg

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
JOBS = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())["jobs"]


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_it_is_of_its_schema(name: str) -> None:
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if (tool := shutil.which("check-jsonschema", path=places)) is None:
        pytest.skip("check-jsonschema is not installed; it comes with '.[test]'")
    command = [tool, "--builtin-schema", "vendor.github-workflows", str(WORKFLOWS / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_supported_python_and_every_target_that_checks() -> None:
    matrix = JOBS["test"]["strategy"]["matrix"]
    pyproject = (ROOT / "pyproject.toml").read_text()
    (low, high) = re.findall(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', pyproject, re.M)[0]
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(low), int(high))]
    targets = {*matrix["target"], *(row["target"] for row in matrix["include"])}
    makefile = (ROOT / "Makefile").read_text()
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"test", "test-lowest", "test-slow", "docs"} <= targets
    assert JOBS["test"]["steps"][-1]["run"] == "make PYTHON=python ${{ matrix.target }}"


def test_contributors_are_told_all_that_it_runs() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (said,) = re.findall(r"^CI \(.*?\n\n", page, re.MULTILINE | re.DOTALL)
    matrix = JOBS["test"]["strategy"]["matrix"]
    targets = {*matrix["target"], *(row["target"] for row in matrix["include"])}
    assert set(re.findall(r"`make ([a-z-]+)`", said)) == targets
    assert "builds the image" in said
    assert JOBS.keys() == {"test", "image"}


def test_the_image_is_built_and_used() -> None:
    lines = [step["run"] for step in JOBS["image"]["steps"] if "run" in step]
    (words,) = [words for line in lines if (words := find(line))]
    assert parse(words)["dataset"] == "demo"


def test_a_release_publishes_what_was_built_and_tested_without_secrets() -> None:
    text = (WORKFLOWS / "release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert "secrets." not in text
    assert any(
        step.get("run", "").endswith("make PYTHON=python dist") for step in jobs["build"]["steps"]
    )
    assert jobs["publish"]["needs"] == jobs["image"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_a_release_needs_the_tag_of_its_version() -> None:
    steps = yaml.safe_load((WORKFLOWS / "release.yml").read_text())["jobs"]["build"]["steps"]
    (check,) = [step["run"] for step in steps if "GITHUB_REF_NAME" in step.get("run", "")]
    version = f"v{featreg.__version__}"
    for tag, status in ((version, 0), ("v0.0.1", 1)):
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        assert subprocess.run(["bash", "-c", check], cwd=ROOT, env=environment).returncode == status
