"""Fixtures for tests of faults: a manifest of tones, and the shards of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_runs import CLIPS, extract, make_manifest
from runs import contents, prep


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("source"), [f"{k:02d}" for k in range(CLIPS)])


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    work = tmp_path_factory.mktemp("undisturbed") / "work"
    run = prep(work, *extract(manifest, workers=2))
    assert run.wait() == 0, run.output
    assert f"{CLIPS} clips extracted, 0 failed, of {CLIPS}" in run.output
    return contents(work)
