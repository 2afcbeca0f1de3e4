"""Mutation test of critical code: each change of one place must make a test fail.

The modules in `TARGETS` decide what is recomputed, rejected, compared or counted. For each, this
script changes one operator, condition, constant or statement at a time, in a copy of the tree, and
runs the tests listed with it. A mutant survives if no test fails. Run it in the environment of
``make``::

    python tools/mutants.py                       # all targets, one process per core
    python tools/mutants.py --only metrics        # targets whose path contains the word
    python tools/mutants.py --sample 40 --seed 1  # at most 40 mutants per target

The exit status is 1 if fewer than ``--goal`` percent of the mutants were killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

Change = tuple[str, Callable[[], None]]

ROOT = Path(__file__).resolve().parents[1]

TARGETS: Mapping[str, tuple[str, ...]] = {
    "train/evaluation/metrics.py": ("tests/test_metrics.py",),
}

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


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, description and source of every mutant of a module."""
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        for number, (what, _) in enumerate(_changes(node)):
            changed = copy.deepcopy(tree)
            twin = next(each for k, each in enumerate(ast.walk(changed)) if k == index)
            [change for _, change in _changes(twin)][number]()
            yield getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(changed))


def _changes(node: ast.AST) -> list[Change]:
    """Descriptions of the ways to change a node, and functions that do it in place."""
    found: list[Change] = []

    def add(what: str, name: str, value: object) -> None:
        found.append((what, lambda: setattr(node, name, value)))

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
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        add(f"{node.value!r} -> {value!r}", "value", value)
    elif isinstance(node, ast.Return) and node.value is not None:
        add("return None", "value", ast.Constant(None))
    for name, body in ast.iter_fields(node):
        if name in ("body", "orelse") and isinstance(body, list):
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


def survives(tree: Path, path: str, source: str, tests: tuple[str, ...], limit_s: float) -> bool:
    """Whether the tests pass if the module at `path` is replaced by this source."""
    original = (tree / path).read_text()
    (tree / path).write_text(source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        return child.wait(limit_s) == 0
    except subprocess.TimeoutExpired:
        return False  # an endless loop was noticed
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        (tree / path).write_text(original)


def main() -> None:
    """Run the mutants, print the survivors and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="Word in the path of the targets to test.")
    parser.add_argument("--sample", type=int, default=0, help="Mutants per target; 0 for all.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sample.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Parallel processes.")
    parser.add_argument("--limit", type=float, default=300.0, help="Seconds per mutant.")
    parser.add_argument("--goal", type=float, default=95.0, help="Percentage to be killed.")
    options = parser.parse_args()
    jobs = []
    for path, tests in TARGETS.items():
        if options.only in path:
            found = list(mutants((ROOT / path).read_text()))
            if options.sample and len(found) > options.sample:
                found = random.Random(options.seed).sample(found, options.sample)
            jobs += [(path, tests, *each) for each in found]
    killed: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder, str(number))))

        def run(job: tuple[str, tuple[str, ...], int, str, str]) -> bool:
            path, tests, _, _, source = job
            tree = trees.get()
            try:
                return survives(tree, path, source, tests, options.limit)
            finally:
                trees.put(tree)

        for job, survived in zip(jobs, pool.map(run, jobs), strict=True):
            path, _, line, what, _ = job
            killed.setdefault(path, []).append(not survived)
            if survived:
                print(f"survived: {path}:{line}: {what}", flush=True)
    for path, outcomes in killed.items():
        print(f"{path}: {sum(outcomes)} of {len(outcomes)} mutants killed")
    outcomes = [outcome for each in killed.values() for outcome in each]
    share = 100 * sum(outcomes) / max(1, len(outcomes))
    print(f"total: {sum(outcomes)} of {len(outcomes)} mutants killed ({share:.1f} %)")
    sys.exit(share < options.goal)


if __name__ == "__main__":
    main()
