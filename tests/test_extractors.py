"""The contract that every extractor keeps, over one kit of edge cases.

Numbers are held to the published implementations elsewhere, feature by feature. A new
feature takes part as soon as it is in `FEATURES` and has its formula in `CASES`.
"""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from kit import make_kit
from safetensors.torch import save_file
from weight_files import OPENL3_FILE, openl3_layers, pca, write_keras

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.base import Clip
from featreg.datasets.shards.native import native_shard
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.base import Extractor
from featreg.extract.extractors.efficientat_network import Network as MobileNet
from featreg.extract.extractors.registry import FEATURES, extractor_class, make_config
from featreg.extract.extractors.vggish import Network
from featreg.extract.weights.cache import locate

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A feature, and how many rows it has of so many samples, at least 1 being given to each."""

    feature: str
    rows: Callable[[int], int]
    choices: dict[str, str] = field(default_factory=dict)


CASES = {
    "audio": Case("audio", lambda n: n),
    "vggish": Case("vggish", lambda n: 1 + (n - 15600) // 15360),
    "vggish raw": Case("vggish", lambda n: 1 + (n - 15600) // 15360, {"output": "raw"}),
    "openl3": Case("openl3", lambda n: 1 + ceil((n - 24000) / 4800)),
    "openl3 from the start": Case(
        "openl3", lambda n: 1 + ceil((n - 48000) / 12000), {"center": "false", "hop": "0.25"}
    ),
    "musicnn": Case("musicnn", lambda n: 1 + (1 + n // 256 - 187) // 61),
    "musicnn taggram": Case(
        "musicnn", lambda n: 1 + (1 + n // 256 - 187) // 30, {"output": "taggram", "hop": "0.48"}
    ),
    "efficientat": Case(
        "efficientat", lambda n: ceil((1 + (n - 2) // 320) / 32), {"model": "mn04"}
    ),
    "efficientat pooled": Case(
        "efficientat",
        lambda n: 1 + ceil(((n - 2) // 320 - 999) / 512),
        {"model": "mn04", "output": "pooled"},
    ),
}
# Frames of these depend on more than their own window: see the tests of the feature.
MEANS_OVER_ALL = ("efficientat", "efficientat pooled")


@pytest.fixture(scope="module")
def weights(seeded: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of seeded weights, as ``FEATREG_WEIGHTS`` names one."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(Network().state_dict(), folder / "vggish.safetensors")
    np.savez(folder / "vggish_pca_params.npz", **pca(seeded))
    torch.save(MobileNet(0.4).state_dict(), folder / "mn04_as_mAP_432.pt")
    write_keras(folder / OPENL3_FILE, openl3_layers(seeded, "mel256"))
    return folder


@pytest.fixture
def build(
    weights: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Extractor]:
    monkeypatch.setenv("FEATREG_WEIGHTS", str(weights))
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights / "cache"))

    def build(case: Case, **choices: str) -> Extractor:
        extractor = extractor_class(case.feature)
        config = make_config(case.feature, {**case.choices, **choices})
        return extractor(config, {key: locate(key, {}) for key in extractor.weight_names(config)})

    return build


def noise(seconds: float, rate: int) -> Floats:
    samples = np.random.default_rng(0).standard_normal(round(seconds * rate))
    return (0.05 * samples).astype(np.float32)


def test_every_feature_has_its_case() -> None:
    assert {case.feature for case in CASES.values()} == set(FEATURES)


@pytest.mark.parametrize("name", CASES)
def test_rows_follow_the_formula(name: str, build: Callable[..., Extractor]) -> None:
    case = CASES[name]
    extractor = build(case)
    rate = extractor.sample_rate
    for samples in (1, 2, rate // 2, rate - 1, rate, rate + 1, *range(3 * rate, 9 * rate, 1237)):
        assert extractor.frames(samples) == max(1, case.rows(samples)), samples


@pytest.mark.parametrize("name", [name for name in CASES if name not in MEANS_OVER_ALL])
def test_a_click_moves_the_rows_whose_window_holds_it(
    name: str, build: Callable[..., Extractor]
) -> None:
    extractor = build(CASES[name])
    rate, timing = extractor.sample_rate, extractor.timing
    quiet = noise(6.0, rate)
    rows = extractor.frames(len(quiet))
    inputs = extractor.inputs(quiet, 0, rows)
    # Windows are tapered: what lies in their outermost 5 ms may pass unheard.
    edge = min(0.005, timing.window_s / 100)
    for sample in np.linspace(0.02, 5.98, 7) * rate:
        clicked = quiet.copy()
        clicked[round(sample)] += 0.5
        heard = extractor.inputs(clicked, 0, rows)
        moved = np.any((heard != inputs).reshape(rows, -1), axis=1)
        distance = np.abs(timing.centers(rows) - round(sample) / rate)
        assert moved[distance < timing.window_s / 2 - edge].all()
        assert not moved[distance > timing.window_s / 2].any()
        if name == "vggish":  # 8 bits may hide one click
            continue
        if first := np.flatnonzero(moved)[:1].tolist():
            assert (extractor.network(heard[first]) != extractor.network(inputs[first])).any()


@pytest.mark.parametrize("name", CASES)
def test_batches_change_nothing(name: str, build: Callable[..., Extractor]) -> None:
    extractor = build(CASES[name])
    # OpenL3 takes its images four at a time, however few there are.
    signal = noise(1.3 if name.startswith("openl3") else 4.3, extractor.sample_rate)
    expected = extractor.extract(signal)
    assert expected.shape == (extractor.frames(len(signal)), extractor.dim)
    assert expected.dtype == extractor.dtype
    # A waveform's row is one sample: its batches hold thousands.
    for batch in (1, 3) if len(expected) < 1000 else (1000, 9973):
        extractor.batch_frames = batch
        found = extractor.extract(signal)
        if np.issubdtype(expected.dtype, np.integer):
            np.testing.assert_array_equal(found, expected)
        else:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", CASES)
def test_memory_is_bounded_by_the_batch(
    name: str, build: Callable[..., Extractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few rows a second: what grows with the clip would grow with its samples, too.
    extractor = build(CASES[name], **({"hop": "1.0"} if name.startswith("openl3") else {}))

    def network(inputs: Any) -> Any:  # of the same sizes, in no time
        return np.zeros((len(inputs), extractor.dim), extractor.dtype)

    monkeypatch.setattr(extractor, "network", network)

    def peak(minutes: int) -> int:
        """Bytes beside the signal and the rows."""
        signal = np.zeros(minutes * 60 * extractor.sample_rate, np.float32)
        tracemalloc.start()
        rows = extractor.extract(signal)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(rows) == extractor.frames(len(signal))
        return most - rows.nbytes

    peak(2)  # what is made once is made here
    assert peak(10) < 1.1 * peak(2) + 1e6


@pytest.fixture(scope="module")
def extracted(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Path], dict[str, Path], str]:
    """The kit's shards, its good and its bad files, and what the command said."""
    folder = tmp_path_factory.mktemp("kit")
    good, bad = make_kit(folder / "audio")
    manifest = folder / "kit.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "path", "split", "labels"])
        for number, (name, path) in enumerate({**good, **bad}.items()):
            if name != "missing":  # a manifest's refusal, before anything is extracted
                split = ("train", "valid", "test")[number % 3]
                writer.writerow([name, path, split, "any"])
    line = ["extract", "--dataset", manifest, "--features", "vggish,openl3,musicnn"]
    line += ["--set", "openl3.hop=0.5", "--work", folder / "work", "--workers", 1]
    line += ["--max-failures", len(bad) - 1]
    environment = {"FEATREG_WEIGHTS": str(weights), "XDG_CACHE_HOME": str(weights / "cache")}
    done = CliRunner(env=environment).invoke(prep, [str(word) for word in line])
    assert done.exit_code == 0, done.output
    del bad["missing"]
    return folder / "work" / "kit", good, bad, done.output


@pytest.mark.parametrize(
    ("feature", "formula"),
    [
        ("audio", lambda n: n),
        ("vggish", CASES["vggish"].rows),
        ("openl3", lambda n: 1 + ceil((n - 24000) / 24000)),
        ("musicnn", CASES["musicnn"].rows),
    ],
)
def test_every_good_file_of_the_kit_has_its_rows(
    feature: str,
    formula: Callable[[int], int],
    extracted: tuple[Path, dict[str, Path], dict[str, Path], str],
) -> None:
    folder, good, _, _ = extracted
    found: dict[str, npt.NDArray[Any]] = {}
    for path in (folder / "native" / feature).glob("*.h5"):
        with native_shard(path) as shard:
            rate = shard.header.sample_rate
            found |= {clip: shard.values(clip) for clip in shard.clip_ids}
    assert set(found) == set(good)
    one = np.ones(1, np.uint8)
    for name, rows in found.items():
        assert np.isfinite(rows).all()
        signal, own_rate = decode(Clip(name, good[name], "train", one, one))
        samples = len(resample(signal, own_rate, rate, "soxr_hq"))
        assert len(rows) == max(1, formula(samples)), name
        assert rows.std() > 0


def test_every_bad_file_of_the_kit_is_named(
    extracted: tuple[Path, dict[str, Path], dict[str, Path], str],
) -> None:
    folder, _, bad, output = extracted
    with (folder / "failures.csv").open(newline="") as file:
        failures = {row["clip_id"]: row for row in csv.DictReader(file)}
    assert set(failures) == set(bad)
    for name, path in bad.items():
        assert path.name in failures[name]["reason"]
    assert f"{len(bad)} failed" in output
