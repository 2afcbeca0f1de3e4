"""Levels that no recording has: integers stored as floats, and channels that cancel."""

from __future__ import annotations

# Loudest sample. Lossy encoders and float masters exceed 1 a little; integers stored as floats
# exceed it hundreds of times.
PEAK = 8.0

# Channels cancel where their mean is this much weaker than they are (what a lossy encoder leaves),
# or at the level of 16-bit rounding while they are well above it.
_CANCELLED = 1e-2
_ROUNDING = 2.0**-15


def too_loud(peak: float) -> str:
    """What is wrong with audio that reaches `peak`, and what to do."""
    return (
        f"its values reach {peak:.6g}, expected [-1, 1] (up to {PEAK:g} is clipped); it seems to "
        "hold integers stored as floats: divide it by 32768 (16 bit) or 2147483648 (32 bit)"
    )


def may_cancel(peak: float) -> bool:
    """Whether the mean of several channels is so weak that they have to be looked at."""
    return peak < _CANCELLED


def cancellation(peak: float, loudest: float) -> str:
    """What is wrong with channels that reach `loudest`, while their mean reaches `peak`."""
    if loudest == 0 or peak > max(_CANCELLED * loudest, min(_ROUNDING, loudest / 16)):
        return ""
    return (
        "its channels cancel when they are averaged (opposite phase): they reach "
        f"{loudest:.3g}, their mean {peak:.2g}; invert one channel, or keep one alone"
    )
