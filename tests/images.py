"""What the tests of the image and of the batch jobs share: instructions, linters, stand-ins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import logical_lines

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PYPROJECT = (ROOT / "pyproject.toml").read_text()
SCRIPTS = re.findall(r'^(\w+) = "featreg\..+:\w+"$', PYPROJECT, re.MULTILINE)
VOLUMES = ["/work", "/cache", "/data"]
FAILURES = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"

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
