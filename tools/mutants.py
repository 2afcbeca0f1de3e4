"""Mutation test of the code that decides: change it in one place, and see a test fail.

The functions in `mutant_targets.py` decide what is recomputed, refused, compared or counted. For
each target, this script changes one operator, condition, constant or statement at a time, in a
copy of the tree, and runs the tests named beside it. A mutant that no test notices has survived.
Wording is not mutated: f-strings, docstrings and the arguments of exceptions. Nor are annotations,
decorators and ``strict=True`` of `zip`. Run it in the environment of ``make``::

    python tools/mutants.py                       # all targets, one process per core
    python tools/mutants.py --only metrics        # targets whose path contains the word
    python tools/mutants.py --sample 40 --seed 1  # at most 40 mutants per target

The exit status is 1 if fewer than ``--goal`` percent of the mutants were killed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from mutant_targets import EQUIVALENT, TARGETS, Target

ROOT = Path(__file__).resolve().parents[1]

# Imported once, by the process from which every test process is forked.
_PRELOADED = (
    *("click", "distributed", "h5py", "hypothesis", "lightning.fabric", "numpy", "pandas"),
    *("pytest", "rich", "safetensors.torch", "scipy.signal", "sklearn.metrics", "soundfile"),
    *("soxr", "torch"),
)

_COMPARE: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_BINARY: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_AS_NONE = ("return", "return None", "return False")


class Mutant(NamedTuple):
    """A module with one change."""

    line: int
    what: str
    source: str


class _Change(NamedTuple):
    """What is to be set where in a syntax tree, in words too."""

    what: str
    name: str
    value: object


def mutants(path: str, functions: Sequence[str] = ()) -> Iterator[Mutant]:
    """Every mutant of a module, or of some of its functions (``name`` or ``Class.name``)."""
    source = (ROOT / path).read_text()
    lines = source.splitlines()
    tree = ast.parse(source)
    for root in _roots(tree, functions):
        for node in _deciding(root):
            for what, name, value in _changes(node):
                number = getattr(node, "lineno", 0)
                if isinstance(value, list) and what.startswith("line "):
                    number = int(what.split()[1])
                if (path, lines[number - 1].strip(), what.split(" -> ")[-1]) in EQUIVALENT:
                    continue
                before = getattr(node, name)
                setattr(node, name, value)
                yield Mutant(number, what, ast.unparse(tree))
                setattr(node, name, before)


def _roots(tree: ast.Module, functions: Sequence[str]) -> list[ast.AST]:
    """The definitions of these names; the whole module if there is none."""
    if not functions:
        return [tree]
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    found[f"{node.name}.{method.name}"] = method
    return [found[name] for name in functions]


def _deciding(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are mutated: all but those of wording, annotations and decorators."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc", "cause"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from _deciding(child)


def _changes(node: ast.AST) -> list[_Change]:
    """The ways to change a node."""
    found: list[_Change] = []

    def add(what: str, name: str, value: object) -> None:
        found.append(_Change(what, name, value))

    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        other = _COMPARE[type(node.ops[0])]
        add(f"{type(node.ops[0]).__name__} -> {other.__name__}", "ops", [other(), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        add(f"-> {type(other_op).__name__}", "op", other_op)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        add(f"{type(node.op).__name__} swapped", "op", _BINARY[type(node.op)]())
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        for value in (True, False):
            if not (isinstance(node, ast.While) and value):
                add(f"condition -> {value}", "test", ast.Constant(value))
    elif isinstance(node, ast.comprehension) and node.ifs:
        add("filter removed", "ifs", [])
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        other_value = not node.value if isinstance(node.value, bool) else node.value + 1
        add(f"{node.value!r} -> {other_value!r}", "value", other_value)
    elif isinstance(node, ast.Return) and ast.unparse(node) not in _AS_NONE:
        add("return None", "value", ast.Constant(None))
    for name, body in ast.iter_fields(node):
        if name in ("body", "orelse", "finalbody") and isinstance(body, list):
            for k, statement in enumerate(body):
                if isinstance(statement, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue):
                    if isinstance(statement, ast.Expr) and isinstance(
                        statement.value, ast.Constant
                    ):
                        continue  # a docstring
                    without = [*body[:k], ast.Pass(), *body[k + 1 :]]
                    add(f"line {statement.lineno} removed", name, without)
    return found


def copy_tree(folder: Path) -> Path:
    """A copy of the packages and tests, to be mutated."""
    for name in ("featreg", "datasets", "extract", "train", "tests", "tools", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "demo_clips", "*.safetensors")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for path in [*ROOT.glob("*/*/demo_clips"), *ROOT.glob("*/*/*.safetensors")]:
        (folder / path.relative_to(ROOT)).symlink_to(path)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def passes(tree: Path, tests: Sequence[str], limit_s: float) -> bool:
    """Whether the tests pass in this tree, in a process of their own, within the limit."""
    child = _PROCESSES.Process(target=_test, args=(tree, tests))
    child.start()
    child.join(limit_s)
    outcome = child.exitcode
    with suppress(ProcessLookupError):  # an endless loop was noticed
        os.killpg(child.pid or 0, signal.SIGKILL)
    child.join()
    child.close()
    return outcome == 0


def _test(tree: Path, tests: Sequence[str]) -> None:
    import pytest

    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    temporary = tempfile.mkdtemp(dir=tree)
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    setattr(os, "fsync", lambda descriptor: None)  # noqa: B010  # no power cut is tested
    # The options of pyproject.toml ask for plugins, which take time to load.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=-m 'not slow'"]
    status = pytest.main([*options, *tests])
    shutil.rmtree(temporary, ignore_errors=True)
    os._exit(int(status))


def survives(tree: Path, path: str, source: str, target: Target, limit_s: float) -> bool:
    """Whether the tests pass with this source in place of the module at `path`."""
    original = (tree / path).read_text()
    compiled = Path(importlib.util.cache_from_source(str(tree / path)))
    try:
        compiled.unlink(missing_ok=True)  # a mutant may have the size and time of the last one
        (tree / path).write_text(source)
        return passes(tree, target.tests, limit_s)
    finally:
        (tree / path).write_text(original)
        compiled.unlink(missing_ok=True)


_PROCESSES = get_context("forkserver")


def main() -> None:
    """Run the mutants, print the survivors and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="Word in the path of the targets to test.")
    parser.add_argument("--sample", type=int, default=0, help="Mutants per target; 0 for all.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sample.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Parallel processes.")
    parser.add_argument("--goal", type=float, default=95.0, help="Percentage to be killed.")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    _PROCESSES.set_forkserver_preload(list(_PRELOADED))
    jobs = []
    for path, target in TARGETS.items():
        if options.only in path:
            found = list(mutants(path, target.functions))
            if options.sample and len(found) > options.sample:
                found = random.Random(options.seed).sample(found, options.sample)
            jobs += [(path, each) for each in found]
    killed: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder, str(number))))
        limits: dict[str, float] = {}
        tree = trees.get()
        for path in dict.fromkeys(path for path, _ in jobs):
            begun = time.monotonic()
            if not passes(tree, TARGETS[path].tests, 600):
                sys.exit(f"{path}: its tests fail without a change")
            limits[path] = 20 + 5 * (time.monotonic() - begun)
        trees.put(tree)

        def run(job: tuple[str, Mutant]) -> bool:
            path, mutant = job
            tree = trees.get()
            try:
                return survives(tree, path, mutant.source, TARGETS[path], limits[path])
            finally:
                trees.put(tree)

        for (path, mutant), survived in zip(jobs, pool.map(run, jobs), strict=True):
            killed.setdefault(path, []).append(not survived)
            if survived:
                print(f"survived: {path}:{mutant.line}: {mutant.what}", flush=True)
    for path, outcomes in killed.items():
        print(f"{path}: {sum(outcomes)} of {len(outcomes)} mutants killed")
    outcomes = [outcome for each in killed.values() for outcome in each]
    share = 100 * sum(outcomes) / max(1, len(outcomes))
    print(f"total: {sum(outcomes)} of {len(outcomes)} mutants killed ({share:.1f} %)")
    sys.exit(share < options.goal)


if __name__ == "__main__":
    main()
