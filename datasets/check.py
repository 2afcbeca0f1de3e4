"""Whether every audio file of a dataset can be decoded, without decoding all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import soundfile

from .base import Clip

# Enough for an mp3 decoder to find its frames; half a second at most rates.
BLOCK = 1 << 15


def fault(clip: Clip) -> str:
    """Why the first block of a clip cannot be decoded; empty if it can."""
    try:
        if not clip.path.stat().st_size:
            return "an empty file"
        with soundfile.SoundFile(clip.path) as file:
            start = round(clip.start_s * file.samplerate)
            if start >= len(file):
                lasts = len(file) / file.samplerate
                return f"lasts {lasts:.3f} s, nothing is left at {clip.start_s} s"
            file.seek(start)
            if not len(file.read(BLOCK, dtype="float32")):
                return "no samples"
    except OSError as error:
        return str(error.strerror)
    except RuntimeError as error:  # soundfile's own errors among them
        return f"cannot be decoded ({error})"
    return ""


def faults(clips: Sequence[Clip]) -> Iterator[tuple[Clip, str]]:
    """Each clip with its fault, in order; libsndfile works on several at once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(clips, pool.map(fault, clips), strict=True)
