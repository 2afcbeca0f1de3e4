"""Fixtures for test modules that name this one in ``pytest_plugins``: tones to extract from."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import make_dataset

from featreg.datasets.base import Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Tones of 1.3 s and more: 7 clips of train, 2 of valid, 3 of test."""
    return make_dataset(tmp_path / "source", {"train": 7, "valid": 2, "test": 3})
