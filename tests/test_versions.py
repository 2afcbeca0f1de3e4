"""The versions that are declared, pinned, and tested are the same ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def declared(table: str) -> list[Requirement]:
    """The requirements of one list in pyproject.toml."""
    (found,) = re.findall(rf"^{table} = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    return [Requirement(text) for text in re.findall(r'^    "(.+?)",', found, re.MULTILINE)]


def pinned(name: str) -> dict[str, set[Version]]:
    """Every version that a file of constraints allows, by package."""
    pins: dict[str, set[Version]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            pins.setdefault(canonicalize_name(requirement.name), set()).add(Version(pin.version))
    return pins


@pytest.mark.parametrize("table", ["dependencies", "test"])
def test_the_lowest_row_has_the_lowest_versions_declared(table: str) -> None:
    lowest = pinned("constraints-lowest.txt")
    for requirement in declared(table):
        (bound,) = requirement.specifier
        assert bound.operator == ">=", requirement
        # A bound without its last parts means the first release that begins so.
        begins = bound.version.split(".")
        for found in lowest[canonicalize_name(requirement.name)]:
            assert found in requirement.specifier
            assert str(found).split(".")[: len(begins)] == begins, requirement


@pytest.mark.parametrize("table", ["dependencies", "test", "docs"])
def test_what_make_installs_is_pinned_and_allowed(table: str) -> None:
    pins = pinned("constraints.txt")
    for requirement in declared(table):
        for found in pins[canonicalize_name(requirement.name)]:
            assert found in requirement.specifier, requirement
