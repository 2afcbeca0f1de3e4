"""The mutation test names functions, tests and lines that exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from mutant_targets import EQUIVALENT, TARGETS  # noqa: E402
from mutants import mutants  # noqa: E402


@pytest.mark.parametrize("path", TARGETS)
def test_every_target_has_mutants_and_tests(path: str) -> None:
    assert next(mutants(path, TARGETS[path].functions))
    for name in TARGETS[path].tests:
        file, _, function = name.partition("::")
        assert f"def {function}" in (ROOT / file).read_text()


def test_equivalent_mutants_are_of_lines_that_exist() -> None:
    for path, line, _ in EQUIVALENT:
        assert line in [each.strip() for each in (ROOT / path).read_text().splitlines()], line
