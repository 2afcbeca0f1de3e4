"""The structure: imports go one way and in no circle, help is light, packages are found."""

from __future__ import annotations

import ast
import subprocess
import sys
import uuid
from graphlib import TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
ROOMS = ("datasets", "extract", "train")
# datasets <- extract <- train, and of train only what deploys a model imports extract.
ALLOWED = {"datasets": set(), "extract": {"datasets"}, "train": {"datasets"}}
DEPLOY = {"datasets", "extract"}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """Level and name of every module that is imported, at the top or inside a function."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found += [(node.level, f"{base}.{alias.name}".lstrip(".")) for alias in node.names]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    paths = [path for path in MODULES if path.is_relative_to(ROOT / room)]
    assert len(paths) > 10
    for path in paths:
        inside = path.relative_to(ROOT / room).parts
        allowed = DEPLOY if (room, inside[0]) == ("train", "deploy") else ALLOWED[room]
        for level, name in imported(ast.parse(path.read_text())):
            if level == 0 and name.startswith("featreg"):
                assert name.split(".")[1] in allowed, f"{path} imports {name}"
            assert level <= len(inside), f"{path}: {'.' * level}{name} leaves the room"


def at_import(path: Path) -> set[str]:
    """Modules of this project that importing the one at `path` imports, by dotted name."""
    package = ("featreg", *path.relative_to(ROOT).parts[:-1])
    names = set()
    for node in ast.parse(path.read_text()).body:
        for level, name in imported(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            base = package[: len(package) - level + 1] if level else ()
            names.add(".".join((*base, name)))
    return names


def test_no_import_goes_in_a_circle() -> None:
    modules = {
        ".".join(("featreg", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in MODULES
    }
    graph = {
        name: {
            other
            for found in at_import(path)
            for other in (found, found.rpartition(".")[0])
            if other in modules and other != name
        }
        for name, path in modules.items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(modules)  # raises CycleError


def test_datasets_know_no_torch() -> None:
    for path in (ROOT / "datasets").rglob("*.py"):
        names = {name.split(".")[0] for _, name in imported(ast.parse(path.read_text()))}
        assert not names & {"torch", "tensorflow", "dask", "lightning"}, path.name


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.name == "__init__.py"],
    ids=lambda path: path.parent.name,
)
def test_package_files_import_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_importing_a_package_brings_no_framework() -> None:
    program = """
import sys, featreg.datasets, featreg.extract, featreg.train
heavy = {"torch", "lightning", "numpy", "pandas", "h5py"} & set(sys.modules)
assert not heavy, heavy
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("command", ["prep", "train"])
def test_help_loads_no_framework(command: str) -> None:
    (entry,) = entry_points(group="console_scripts", name=command)
    program = f"""
import sys
from {entry.module} import {entry.attr} as group
for name in (None, *group.commands):
    try:
        group.main([name, "--help"] if name else ["--help"], "{command}")
    except SystemExit as end:
        assert end.code == 0, (name, end.code)
heavy = {{"torch", "tensorflow", "lightning", "dask", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Example") >= 2


def test_every_folder_of_modules_is_a_package_that_is_found() -> None:
    folders = {path.parent.relative_to(ROOT) for path in MODULES}
    found = find_packages(str(ROOT), include=["featreg*"])
    assert {".".join(("featreg", *folder.parts)) for folder in folders} | {"featreg"} == {*found}


def test_a_new_file_can_be_imported_at_once() -> None:
    new = ROOT / "datasets" / "collections" / f"new_{uuid.uuid4().hex}.py"
    new.write_text("VALUE = 7\n")
    try:
        program = f"from featreg.datasets.collections.{new.stem} import VALUE; print(VALUE)"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd="/", capture_output=True, text=True
        )
    finally:
        new.unlink()
    assert done.stdout == "7\n", done.stderr


def test_no_drawer_for_everything() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "misc", "common"}
