"""Fixtures for test modules that name this one in ``pytest_plugins``: shards to plan from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from native_shards import Work


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """What `planned` and `aligned` are copied from."""
    planned = Work(tmp_path_factory.mktemp("template"))
    planned.store_all()
    planned.align()
    return planned


@pytest.fixture
def planned(template: Work, tmp_path: Path) -> Work:
    """A dataset with native shards, which a test may change."""
    planned = Work(tmp_path)
    shutil.copytree(template.folder.native(""), planned.folder.native(""))
    return planned


@pytest.fixture
def aligned(template: Work, planned: Work) -> Work:
    """The same with its aligned shards."""
    shutil.copytree(template.folder.aligned(""), planned.folder.aligned(""))
    return planned
