"""The house: imports go one way, help is light, and packaging knows every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("datasets", "extract", "train")
# datasets <- extract, datasets <- train, never extract <-> train.
ALLOWED = {"datasets": {"datasets"}, "extract": {"datasets"}, "train": {"datasets"}}
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room, *inside = path.relative_to(ROOT).parts
    for level, name in imported(ast.parse(path.read_text())):
        if level == 0 and name.startswith("featreg"):
            other = name.split(".")[1]
            assert other in ALLOWED[room], f"{room} imports {name}"
            assert other != room, f"inside a room imports are relative, not {name}"
        assert level <= len(inside), f"{'.' * level}{name} leaves the room"


def test_datasets_know_no_torch() -> None:
    for path in (ROOT / "datasets").rglob("*.py"):
        names = {name.split(".")[0] for _, name in imported(ast.parse(path.read_text()))}
        assert not names & {"torch", "tensorflow", "dask", "lightning"}, path.name


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/**/__init__.py")), ids=str)
def test_package_files_import_nothing(path: Path) -> None:
    """But for train's: what one asks it for it imports then; see test_train_classifier.py."""
    if path.relative_to(ROOT).parts[0] in ROOMS and path != ROOT / "train/__init__.py":
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


def test_every_folder_of_modules_is_packaged() -> None:
    packages = {path.parent.relative_to(ROOT) for path in MODULES}
    text = (ROOT / "pyproject.toml").read_text()
    for package in packages:
        name = ".".join(("featreg", *package.parts))
        assert f'"{name}" = "{package.as_posix()}"' in text
        assert f'    "{name}",\n' in text
        assert (ROOT / package / "__init__.py").is_file()


def test_no_drawer_for_everything() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "misc", "common"}
