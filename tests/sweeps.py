"""Audio files in memory, whose decoded samples are known: for the tests of decoding."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from kit import make_clip

from featreg.datasets.audio.decode import decode

Samples = npt.NDArray[np.float32]


def sweep(seconds: float = 2.0, rate: int = 16000, channels: int = 1, seed: int = 0) -> Samples:
    """A rising sine with a little noise, where no sample repeats; (samples, channels)."""
    t = np.arange(round(seconds * rate))[:, None] / rate
    noise = np.random.default_rng(seed).standard_normal((len(t), channels))
    phase = 2 * np.pi * (200 + 1000 * t / seconds) * t + np.arange(channels)
    return (0.3 * np.sin(phase) + 0.02 * noise).astype(np.float32)


def encoded(
    format: str, subtype: str | None = None, samples: Samples | None = None, rate: int = 16000
) -> bytes:
    """The contents of a file."""
    file = io.BytesIO()
    samples = sweep(rate=rate) if samples is None else samples
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def heard(
    path: Path, data: bytes, start_s: float = 0.0, duration_s: float | None = None
) -> Samples:
    """What `decode` makes of a file with these contents."""
    path.write_bytes(data)
    return decode(replace(make_clip(path), start_s=start_s, duration_s=duration_s))[0]
