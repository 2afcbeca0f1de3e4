"""Checks of levels: integers stored as floats, and channels that cancel each other."""

from __future__ import annotations

# Maximum magnitude of a sample. Lossy encoders and float masters exceed 1 slightly; integers stored
# as floats exceed it hundreds of times.
PEAK = 8.0

# Channels cancel if the ratio of their mean to them is at most this (lossy encoders leave a rest),
# or if their mean is at the level of 16-bit rounding, and they are well above it.
_CANCELLED = 1e-2
_ROUNDING = 2.0**-15


def too_loud(peak: float) -> str:
    """Description of the problem of audio that reaches `peak`, with a remedy."""
    return (
        f"its values reach {peak:.6g}, expected [-1, 1] (up to {PEAK:g} is clipped); it seems to "
        "hold integers stored as floats: divide it by 32768 (16 bit) or 2147483648 (32 bit)"
    )


def may_cancel(peak: float) -> bool:
    """Whether the mean of several channels is so weak that they may cancel each other."""
    return peak < _CANCELLED


def cancellation(peak: float, loudest: float) -> str:
    """Description of the problem if channels reach `loudest` and their mean `peak`; or empty."""
    if loudest == 0 or peak > max(_CANCELLED * loudest, min(_ROUNDING, loudest / 16)):
        return ""
    return (
        "its channels cancel when they are averaged (opposite phase): they reach "
        f"{loudest:.3g}, their mean {peak:.2g}; invert one channel, or keep one alone"
    )
