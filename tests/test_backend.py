"""OpenL3 by an installed ``openl3`` package, which a stand-in of its interface plays here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kit import tone, write

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections.manifest import read as read_manifest
from featreg.datasets.shards.native import native_shard
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.openl3 import OpenL3Config
from featreg.extract.extractors.openl3_package import OpenL3Package

STAND_INS = Path(__file__).parent / "stand_ins"
RATE = 48000


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, where this process and those that it starts find it."""
    monkeypatch.delitem(sys.modules, "openl3", raising=False)
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    import openl3

    openl3.loaded.clear()
    yield openl3
    del sys.modules["openl3"]


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.37])
def test_the_package_gives_the_same_rows_at_the_same_times(
    package: Any, seeded: ModuleType, center: bool, seconds: float
) -> None:
    config = OpenL3Config("linear", "env", center=center)
    extractor = OpenL3Package(config, {})
    signal = seeded.signal(seconds, RATE, 4)
    whole, times = package.get_audio_embedding(signal, RATE, 512, center=center)
    np.testing.assert_array_equal(extractor.extract(signal), whole)
    starts_or_centers = extractor.timing.centers(len(whole)) - (0 if center else 0.5)
    np.testing.assert_allclose(starts_or_centers, times, atol=1e-12)
    assert package.loaded == [("linear", "env", 512)]
    assert extractor.settings["backend"] == "openl3 0.4.2"
    assert extractor.weights_sha256 == ""


@pytest.mark.usefixtures("package")
def test_what_the_package_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="trained"):
        OpenL3Package(OpenL3Config(frontend="trained"), {})
    with pytest.raises(UsageError, match="bfloat16"):
        OpenL3Package(OpenL3Config(), {}, precision="bfloat16")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openl3", None)
    with pytest.raises(FeatregError, match="pip install openl3"):
        OpenL3Package(OpenL3Config(), {})


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three clips, one a split."""
    lines = ["path,split,labels"]
    for k, split in enumerate(("train", "valid", "test")):
        write(tmp_path / f"{split}.wav", tone(1.2, RATE, seed=k), RATE)
        lines.append(f"{split}.wav,{split},low")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines))
    return path


def extract(manifest: Path, *options: str) -> Result:
    line = ["extract", "--dataset", str(manifest), "--work", str(manifest.parent / "work")]
    return CliRunner().invoke(prep, [*line, "--workers", "1", *options])


@pytest.mark.usefixtures("package")
def test_the_option_fills_the_same_shards(package: Any, manifest: Path) -> None:
    done = extract(manifest, "--features", "openl3", "--backend", "openl3")
    assert done.exit_code == 0, done.output
    (path,) = (manifest.parent / "work").rglob("native/openl3/00000.h5")
    with native_shard(path) as shard:
        assert shard.header.feature == "openl3"
        assert shard.header.settings["backend"] == "openl3 0.4.2"
        found = shard.values(shard.clip_ids[0])
    clip = read_manifest(manifest).clips[0]
    assert clip.clip_id == shard.clip_ids[0]
    signal, rate = decode(clip)
    expected, _ = package.get_audio_embedding(resample(signal, rate, RATE, "soxr_hq"), RATE, 512)
    np.testing.assert_array_equal(found, expected)


def test_the_option_is_for_openl3(manifest: Path) -> None:
    refused = extract(manifest, "--features", "musicnn", "--backend", "openl3")
    assert refused.exit_code == 2
    assert "--backend openl3" in refused.output
