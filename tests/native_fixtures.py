"""Fixtures for test modules that name this one in ``pytest_plugins``: shards to plan from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from native_shards import Work


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """What `work` and `aligned` are copied from."""
    work = Work(tmp_path_factory.mktemp("template"))
    work.store_all()
    work.align()
    return work


@pytest.fixture
def work(template: Work, tmp_path: Path) -> Work:
    """A dataset with native shards, which a test may change."""
    work = Work(tmp_path)
    shutil.copytree(template.folder.native(""), work.folder.native(""))
    return work


@pytest.fixture
def aligned(template: Work, work: Work) -> Work:
    """The same with its aligned shards."""
    shutil.copytree(template.folder.aligned(""), work.folder.aligned(""))
    return work
