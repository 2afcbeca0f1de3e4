"""Fixtures for test modules that name this one in ``pytest_plugins``: weights without a network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from file_server import FileServer
from weight_files import OPENL3, OPENL3_FILE, PCA_FILE, openl3_layers, pca, publish, write_keras

from featreg.datasets.collections import fetch as fetching
from featreg.datasets.collections.fetch import Checksum


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights of this machine's user, and no waiting between attempts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FEATREG_WEIGHTS", raising=False)
    monkeypatch.delenv("FEATREG_WEIGHTS_URL", raising=False)
    monkeypatch.setattr(fetching, "BACKOFF_S", 0.0)


@pytest.fixture(scope="session")
def files(seeded: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with seeded files under published names."""
    folder = tmp_path_factory.mktemp("published")
    np.savez(folder / PCA_FILE, **pca(seeded))
    write_keras(folder / OPENL3_FILE, openl3_layers(seeded, "mel256"))
    return folder


@pytest.fixture
def messages(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What `say` and `warn` were told."""
    monkeypatch.setattr(logging.getLogger("featreg"), "propagate", True)
    caplog.set_level(logging.INFO, "featreg")
    return caplog


@pytest.fixture
def server(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A mirror of the seeded files, whose hashes pass for the published ones."""
    contents = {f"/mirror/{path.name}": path.read_bytes() for path in files.iterdir()}
    for name, file, algorithm in (
        ("vggish_pca", PCA_FILE, "md5"),
        (OPENL3, OPENL3_FILE, "git-blob-sha1"),
    ):
        publish(monkeypatch, name, Checksum(algorithm, Checksum(algorithm, "").of(files / file)))
    with FileServer(contents) as server:
        monkeypatch.setenv("FEATREG_WEIGHTS_URL", f"{server.base}/mirror/")
        yield server
