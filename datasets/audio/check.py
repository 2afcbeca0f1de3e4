"""Whether every audio file of a dataset can be decoded, without decoding all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..base import Clip, ClipError
from .decode import bounds, check_format, nothing_left
from .files import open_audio

# Enough for an mp3 decoder to find its frames; half a second at most rates.
BLOCK = 1 << 15


def fault(clip: Clip) -> str:
    """Why the first block of a clip cannot be decoded; empty if it can."""
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
    """Each clip with its fault, in order; libsndfile works on several at once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(clips, pool.map(fault, clips), strict=True)
