"""`Windowed`: windows, overlap, padding, batches and the time grid, against slow loops."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from featreg.datasets.base import ClipError, FeatregError, UsageError
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.batching import Batcher
from featreg.extract.extractors.windowed import Windowed

Floats = npt.NDArray[np.float32]
RATE = 100


class Sums(Windowed):
    """Sum and first sample of each window."""

    name = "sums"
    sample_rate = RATE
    window_s = 1.0
    hop_s = 0.5

    def __init__(self, **changes: Any) -> None:
        super().__init__(self.Config(), {})
        self.calls: list[int] = []
        self.loads = 0
        for key, value in changes.items():
            setattr(self, key, value)
        for key, value in self.learn().items():
            setattr(self, key, value)
        self.calls.clear()

    def load(self) -> None:
        self.loads += 1

    def embed(self, windows: Floats) -> Any:
        self.calls.append(len(windows))
        return np.stack([windows.sum(axis=1), windows[:, 0]], axis=1)


class Bins(Sums):
    """Means of the tenths of each window, and the number of the tenth."""

    name = "bins"

    def embed(self, windows: Floats) -> Any:
        self.calls.append(len(windows))
        means = torch.from_numpy(windows).reshape(len(windows), 10, -1).mean(dim=2)
        return torch.stack([means, torch.arange(10.0).expand_as(means)], dim=2)


def ramp(samples: int) -> Floats:
    return np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 37, 99, 100, 101, 149, 150, 151, 420])
def test_one_vector_per_window_equals_a_loop(samples: int) -> None:
    signal, sums = ramp(samples), Sums()
    expected = []
    start = 0
    while True:
        window = signal[start : start + 100]
        expected.append((window.sum(), window[0] if len(window) else 0))
        if start + 100 >= samples:
            break
        start += 50
    found = sums.extract(signal)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(found) == sums.frames(samples) == 1 + max(0, ceil((samples - 100) / 50))
    assert sums.timing == FrameTiming(0.5, 1.0, 0.5)


@pytest.mark.parametrize("hop", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("samples", [1, 10, 11, 100, 101, 130, 395, 1000])
def test_several_frames_per_window_are_the_ones_nearest_to_its_middle(
    hop: float, samples: int
) -> None:
    signal, bins = ramp(samples), Bins(hop_s=hop)
    found = bins.extract(signal)
    assert len(found) == bins.frames(samples) == ceil(samples / 10)
    padded = np.append(signal, np.zeros(10, np.float32))
    step, last = round(10 * hop), max(0, ceil((samples - 100) / (100 * hop)))
    for i, (mean, place) in enumerate(found):
        assert mean == pytest.approx(padded[10 * i : 10 * i + 10].mean(), abs=1e-6)
        # Of the windows that hold the frame, the one whose middle is nearest.
        distance = {abs(i - step * w - 4.5) for w in range(last + 1) if 0 <= i - step * w < 10}
        assert abs(place - 4.5) <= min(distance) + 1
    assert bins.timing == FrameTiming(0.1, 1.0, 0.05)


def test_frames_of_another_distance_than_the_windows_share() -> None:
    # As of a network of 9 frames per second, 0.1 s apart, of 0.2 s each.
    class Overlapping(Bins):
        def embed(self, windows: Floats) -> Any:
            return super().embed(windows)[:, :9]

    found = Overlapping(frame_s=0.1, first_center_s=0.1)
    assert found.timing == FrameTiming(0.1, 1.0, 0.1)
    assert [found.frames(n) for n in (1, 55, 95, 100, 101, 150, 151)] == [1, 6, 9, 9, 11, 14, 16]


@pytest.mark.parametrize("kind", [Sums, Bins])
def test_clips_share_batches(kind: type[Sums]) -> None:
    extractor = kind(batch_windows=4)
    signals = [ramp(samples) for samples in (20, 430, 100, 777, 60, 150)]
    alone = [kind(batch_windows=1).extract(signal) for signal in signals]
    found: list[Any] = []
    batcher = Batcher(extractor, lambda _, frames: found.append(frames))
    for k, signal in enumerate(signals):
        batcher.push(str(k), signal)
    batcher.flush()
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    windows = sum(1 + max(0, ceil((len(signal) - 100) / 50)) for signal in signals)
    assert sum(extractor.calls) == windows  # none twice
    assert max(extractor.calls) == 4
    assert extractor.loads == 1


def test_a_file_that_changes_is_another_feature(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("one")
    hashes = [Sums(files=(tmp_path / "weights",)).weights_sha256]
    (tmp_path / "weights").write_text("two")
    hashes.append(Sums(files=(tmp_path / "weights",)).weights_sha256)
    assert len({*hashes, "", Sums().weights_sha256}) == 3
    with pytest.raises(UsageError, match=r"sums: .*nowhere: No such file"):
        Sums(files=(tmp_path / "nowhere",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample_rate": None}, "sample rate"),
        ({"window_s": 0.0}, "window_s"),
        ({"window_s": float("inf")}, "window_s"),
        ({"hop_s": -1.0}, "hop_s"),
        ({"hop_s": 0.001}, "hop_s"),
        ({"network": len}, r"self\.network, which is a method"),
        ({"embed": lambda windows: windows[0]}, r"\(2, dim\) .* found \(100,\)"),
        ({"embed": lambda windows: windows[:1]}, r"found \(1, 100\)"),
        ({"embed": lambda windows: windows[:, :0]}, r"found \(2, 0\)"),
        ({"embed": lambda windows: np.full((2, 3), "x")}, "<U1"),
        ({"embed": lambda windows: windows.reshape(2, 10, 10), "hop_s": 0.25}, r"0\.1 s.* 0\.25 s"),
        ({"embed": lambda windows: windows.reshape(2, 10, 10), "hop_s": 2.0}, r"1 s.* found 2 s"),
    ],
)
def test_what_cannot_be_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FeatregError, match=f"^sums: .*{words}"):
        Sums(**changes)


def test_a_shape_that_changes_ends_the_run_and_nan_fails_the_clip() -> None:
    sums = Sums()
    sums.embed = lambda windows: np.zeros((len(windows), 3))  # type: ignore[method-assign]
    with pytest.raises(FeatregError, match=r"sums: .*\(1, 1, 2\).* found \(1, 1, 3\)"):
        sums.extract(ramp(100))
    bins = Bins()
    bins.embed = lambda windows: np.zeros((len(windows), 9, 2))  # type: ignore[method-assign]
    with pytest.raises(FeatregError, match=r"bins: .*\(1, 10, 2\).* found \(1, 9, 2\)"):
        bins.extract(ramp(100))
    sums.embed = lambda windows: np.full((len(windows), 2), np.nan)  # type: ignore[method-assign]
    with pytest.raises(ClipError, match=r"sums: frame 0 \(at 0\.500 s\) .* not finite"):
        sums.extract(ramp(100))
    with pytest.raises(ClipError, match="sums: the signal is not finite"):
        sums.extract(np.full(100, np.nan, np.float32))
