"""Clips that share batches: each gets its own rows, also beside clips that have none."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from kit import tone
from loudness import Loudness, LoudnessConfig

from featreg.datasets.base import ClipError
from featreg.extract.extractors.base import Array, Signal
from featreg.extract.extractors.batching import Batcher


def test_clips_share_batches_and_keep_their_rows() -> None:
    extractor = Loudness(LoudnessConfig(), {})
    signals = {f"{n}": tone(n / 2, 8000, seed=n)[:, 0] for n in (1, 7, 2, 13, 3)}
    delivered = {}
    batcher = Batcher(extractor, delivered.__setitem__)
    for key, signal in signals.items():
        batcher.push(key, signal)
    batcher.flush()
    assert list(delivered) == list(signals)
    for key, signal in signals.items():
        np.testing.assert_array_equal(delivered[key], extractor.extract(signal))


class Picky(Loudness):
    """Refuses clips as their extractor reads them: at once, or amid their rows."""

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        found = super().inputs(signal, start, stop)
        if np.isnan(found).any():
            raise ClipError("extract", "not a number")
        return found


@pytest.mark.parametrize("bad", [0, 6, 11])  # in the first batch of its rows, or a later one
def test_a_clip_that_is_refused_amid_its_rows_takes_none_of_the_others(bad: int) -> None:
    extractor = Picky(LoudnessConfig(), {})
    signals = {f"{n}": tone(n / 2, 8000, seed=n)[:, 0] for n in (2, 1, 13, 3, 7)}
    signals["13"][bad * 4000] = np.nan
    delivered = {}
    batcher = Batcher(extractor, delivered.__setitem__)
    for key, signal in signals.items():
        with pytest.raises(ClipError) if key == "13" else nullcontext():
            batcher.push(key, signal)
    batcher.flush()
    assert list(delivered) == ["2", "1", "3", "7"]
    for key, rows in delivered.items():
        np.testing.assert_array_equal(rows, extractor.extract(signals[key]))


def test_a_network_cannot_refuse_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Loudness, inputs: Array) -> Array:
        raise ClipError("extract", "too loud")

    monkeypatch.setattr(Loudness, "network", refuse)
    with pytest.raises(RuntimeError, match=r"loudness: .* frames of several clips; .*too loud"):
        Loudness(LoudnessConfig(), {}).extract(tone(1.0, 8000)[:, 0])
