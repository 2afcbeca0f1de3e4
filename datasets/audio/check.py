"""Check of whether the first block of every audio file can be decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..base import Clip, ClipError
from .decode import bounds, check_format, nothing_left
from .files import open_audio

# Number of samples, enough for an mp3 decoder to find its frames.
BLOCK = 1 << 15


def fault(clip: Clip) -> str:
    """Reason why the first block of a clip cannot be decoded; empty if it can."""
    try:
        with open_audio(clip.path) as stream:
            check_format(clip.path, stream)
            start, stop = bounds(clip, stream.rate)
            end = start + BLOCK if stop is None else min(stop, start + BLOCK)
            if not any(len(block) for block in stream.blocks(start, end)):
                return nothing_left(clip, stream).reason
    except ClipError as error:
        return error.reason
    return ""


def faults(clips: Sequence[Clip]) -> Iterator[tuple[Clip, str]]:
    """Yield each clip with its fault, in order; several files are read in parallel."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(clips, pool.map(fault, clips), strict=True)
