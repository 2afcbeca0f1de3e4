"""Fixtures for tests of faults: a manifest of tones, and the shards of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import tone, write
from runs import contents, prep

CLIPS = 24


FEATURES = "loudness:Loudness"


def make_manifest(folder: Path, names: list[str]) -> Path:
    """Clips of these names, tones all; and the manifest that lists them."""
    lines = ["path,labels,split"]
    for k, name in enumerate(names):
        write(folder / f"{name}.wav", tone(0.8 + 0.05 * k, 22050, 1 + k % 2, seed=k), 22050)
        lines.append(f"{name}.wav,{'low' if k % 2 else 'high'},train")
    path = folder / "tones.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("source"), [f"{k:02d}" for k in range(CLIPS)])


def extract(manifest: Path, workers: int = 1) -> list[object]:
    return ["extract", "--dataset", manifest, "--allow-missing", "--features", FEATURES,
            "--shard-clips", 2, "--workers", workers, "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    work = tmp_path_factory.mktemp("undisturbed") / "work"
    run = prep(work, *extract(manifest, workers=2))
    assert run.wait() == 0, run.output
    assert f"{CLIPS} clips extracted, 0 failed, of {CLIPS}" in run.output
    return contents(work)
