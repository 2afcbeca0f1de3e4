"""Alignment against closed forms, slow loops and properties."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.alignment.resample_frames import MODES, Mode, align_span, target_frames

VGGISH = FrameTiming(hop_s=0.96, window_s=0.975, first_center_s=0.4875)
OPENL3 = FrameTiming(hop_s=0.1, window_s=1.0, first_center_s=0.0)

clocks = st.builds(
    FrameTiming,
    hop_s=st.floats(0.01, 3.0),
    window_s=st.floats(0.01, 3.0),
    first_center_s=st.floats(0.0, 2.0),
)
durations = st.floats(0.03, 40.0)
resolutions = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0])


def align(
    frames: npt.NDArray[np.float32],
    timing: FrameTiming,
    resolution_s: float,
    duration_s: float,
    mode: Mode,
) -> npt.NDArray[np.float32]:
    """All target frames of a clip at once."""
    read = lambda first, last: frames[first:last]  # noqa: E731
    span = range(target_frames(duration_s, resolution_s) if resolution_s else 0)
    return align_span(read, len(frames), timing, resolution_s, duration_s, mode, span)


def ramp(rows: int, dim: int = 2) -> npt.NDArray[np.float32]:
    """Row i holds i, 10 i, ..."""
    return (np.arange(rows)[:, None] * 10.0 ** np.arange(dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("duration_s", "resolution_s", "rows"),
    [(29.1, 0.1, 291), (10.0, 0.1, 100), (0.3, 0.1, 3), (0.31, 0.1, 4), (0.02, 0.1, 1), (6, 1, 6)],
)
def test_target_rows_is_the_ceiling_despite_rounding(
    duration_s: float, resolution_s: float, rows: int
) -> None:
    assert target_frames(duration_s, resolution_s) == rows


def test_repeat_gives_each_vggish_row_ten_times_and_holds_the_last() -> None:
    aligned = align(ramp(10), VGGISH, 0.1, 10.0, "repeat")
    assert aligned.shape == (100, 2)
    np.testing.assert_array_equal(aligned[:, 0], np.repeat(np.arange(10), 10))
    longer = align(ramp(10), VGGISH, 0.1, 10.34, "repeat")
    np.testing.assert_array_equal(longer[:, 0], [*np.repeat(np.arange(10), 10), *[9] * 4])


def test_repeat_averages_ten_openl3_rows_into_a_second() -> None:
    aligned = align(ramp(25), OPENL3, 1.0, 2.5, "repeat")
    # Whole groups of ten, and the mean of the five that are left.
    np.testing.assert_allclose(aligned[:, 0], [4.5, 14.5, 22.0])


def test_repeat_at_the_stream_s_own_hop_changes_nothing() -> None:
    np.testing.assert_array_equal(align(ramp(60), OPENL3, 0.1, 6.0, "repeat"), ramp(60))


def test_area_weighs_two_cells_by_their_share_of_the_target_row() -> None:
    timing = FrameTiming(hop_s=1.0, window_s=1.0, first_center_s=0.5)
    aligned = align(ramp(3, 1), timing, 0.75, 3.0, "area")
    # [0, .75) lies in cell 0; [.75, 1.5) a third in 0; [1.5, 2.25) two thirds in 1; then cell 2.
    np.testing.assert_allclose(aligned[:, 0], [0.0, 2 / 3, 4 / 3, 2.0], rtol=1e-6)


def test_area_does_not_drift_where_repeat_does() -> None:
    # On a long clip the stream says at which second it is; area keeps saying so.
    timing = FrameTiming(hop_s=0.976, window_s=3.0, first_center_s=0.488)
    rows = timing.centers(600)[:, None].astype(np.float32)
    middles = (np.arange(5856) + 0.5) * 0.1
    by_area = align(rows, timing, 0.1, 585.6, "area")[:, 0]
    by_repeat = align(rows, timing, 0.1, 585.6, "repeat")[:, 0]
    assert np.abs(by_area - middles).max() < 0.976
    assert np.abs(by_repeat - middles).max() > 10


def test_linear_is_exact_on_a_ramp_between_the_outer_centers() -> None:
    timing = FrameTiming(hop_s=0.5, window_s=1.0, first_center_s=0.25)
    aligned = align(ramp(4, 1), timing, 0.25, 2.0, "linear")[:, 0]
    middles = (np.arange(8) + 0.5) * 0.25
    np.testing.assert_allclose(aligned, np.clip((middles - 0.25) / 0.5, 0, 3), rtol=1e-6)


@settings(deadline=None)
@given(clocks, durations, resolutions, st.sampled_from(MODES), st.integers(1, 60))
def test_lengths_agree_and_a_constant_stays(
    timing: FrameTiming, duration_s: float, resolution_s: float, mode: Mode, rows: int
) -> None:
    aligned = align(np.full((rows, 3), 1.7, np.float32), timing, resolution_s, duration_s, mode)
    assert aligned.shape == (target_frames(duration_s, resolution_s), 3)
    # float32 holds the constant; the means are formed in float64.
    np.testing.assert_allclose(aligned, 1.7, rtol=2e-7)


@settings(deadline=None)
@given(clocks, durations, resolutions, st.sampled_from(MODES), st.integers(2, 60))
def test_time_never_runs_backwards(
    timing: FrameTiming, duration_s: float, resolution_s: float, mode: Mode, rows: int
) -> None:
    aligned = align(ramp(rows), timing, resolution_s, duration_s, mode)
    assert (np.diff(aligned[:, 0]) >= -1e-4).all()


@settings(deadline=None)
@given(
    clocks,
    durations,
    resolutions,
    st.sampled_from(MODES),
    st.integers(1, 60),
    st.integers(1, 50),
)
def test_piece_by_piece_is_the_same_as_at_once(
    timing: FrameTiming, duration_s: float, resolution_s: float, mode: Mode, rows: int, piece: int
) -> None:
    values = np.random.default_rng(rows).standard_normal((rows, 2)).astype(np.float32)
    wanted = target_frames(duration_s, resolution_s)

    def read(first: int, last: int) -> npt.NDArray[np.float32]:
        assert 0 <= first < last <= rows
        return values[first:last]

    parts = [
        align_span(
            read,
            rows,
            timing,
            resolution_s,
            duration_s,
            mode,
            range(start, min(wanted, start + piece)),
        )
        for start in range(0, wanted, piece)
    ]
    whole = align(values, timing, resolution_s, duration_s, mode)
    # `area` sums up from the first row of a piece: another rounding of float64, divided by
    # what is left of the last row.
    rest = duration_s / resolution_s % 1
    tolerance = 1e-6 if rest == 0 or rest > 1e-3 else 1e-2
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("timing", [VGGISH, OPENL3], ids=["vggish", "openl3"])
@pytest.mark.parametrize("resolution_s", [0.1, 2.0])
def test_a_piece_of_an_hour_reads_no_more_rows_than_it_needs(
    mode: Mode, timing: FrameTiming, resolution_s: float
) -> None:
    rows = round(3600 / timing.hop_s)
    read = []

    def note(first: int, last: int) -> npt.NDArray[np.float32]:
        read.append(last - first)
        return np.zeros((last - first, 1), np.float32)

    for start in (0, 700, round(3600 / resolution_s) - 100):
        span = range(start, start + 100)
        assert len(align_span(note, rows, timing, resolution_s, 3600.0, mode, span)) == 100
    # The rows of a hundred target rows, and one on either side.
    assert max(read) <= 100 * resolution_s / timing.hop_s + 3


def slow_area(
    rows: npt.NDArray[np.float32], timing: FrameTiming, r: float, duration_s: float
) -> npt.NDArray[np.float64]:
    """The definition, one overlap at a time."""
    centers = [timing.first_center_s + i * timing.hop_s for i in range(len(rows))]
    inner = [min(max((a + b) / 2, 0.0), duration_s) for a, b in pairwise(centers)]
    edges = [0.0, *inner, duration_s]
    out = []
    for k in range(target_frames(duration_s, r)):
        begin, end = min(k * r, duration_s), min((k + 1) * r, duration_s)
        total = np.zeros(rows.shape[1])
        for i, row in enumerate(rows):
            total += row * max(0.0, min(end, edges[i + 1]) - max(begin, edges[i]))
        out.append(total / (end - begin))
    return np.array(out)


@settings(deadline=None, max_examples=50)
@given(clocks, st.floats(0.2, 15.0), resolutions, st.integers(1, 20), st.integers(0, 99))
def test_area_equals_the_slow_loop_and_keeps_the_integral(
    timing: FrameTiming, duration_s: float, resolution_s: float, rows: int, seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, 2)).astype(np.float32)
    aligned = align(values, timing, resolution_s, duration_s, "area")
    slow = slow_area(values, timing, resolution_s, duration_s)
    # A last row of under a thousandth of the resolution divides a rounded difference.
    rest = duration_s / resolution_s - math.floor(duration_s / resolution_s)
    tolerance = 1e-5 if rest == 0 or rest > 1e-3 else 1e-2
    np.testing.assert_allclose(aligned, slow, atol=tolerance)
    widths = np.diff(np.minimum(np.arange(len(aligned) + 1) * resolution_s, duration_s))
    whole = slow_area(values, timing, duration_s, duration_s)[0] * duration_s
    np.testing.assert_allclose((aligned * widths[:, None]).sum(axis=0), whole, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_aligned_is_refused(mode: Mode) -> None:
    with pytest.raises(ValueError, match="at least 1 frame"):
        align(np.empty((0, 2), np.float32), OPENL3, 0.1, 1.0, mode)
    with pytest.raises(ValueError, match="above 0"):
        align(ramp(2), OPENL3, 0.0, 1.0, mode)


def test_impossible_clocks_are_refused() -> None:
    with pytest.raises(ValueError, match="hop_s must be above 0"):
        FrameTiming(hop_s=0.0, window_s=1.0, first_center_s=0.0)
    with pytest.raises(ValueError, match="first_center_s must be finite"):
        FrameTiming(hop_s=1.0, window_s=1.0, first_center_s=math.nan)
