"""Decoding of audio files to mono signals: decode, downmix, resample."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import soxr

from ..base import Clip, ClipError, DecodeError, UsageError
from .files import open_audio
from .levels import PEAK, cancellation, may_cancel, too_loud
from .stream import Stream

# Incremented when a release decodes or resamples to different samples, so that existing features
# are computed again.
REVISION = 2

Resampler = Literal["soxr_hq", "soxr_vhq", "kaiser_best"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)

# Minimum length in seconds, one window of a short-time transform; shorter files are broken.
SHORTEST_S = 0.025

# Limits of the sample rate in Hz, the number of channels and the samples of a clip (6.2 h at
# 48 kHz). Beyond them, the header is wrong, or the memory would not suffice.
RATES = (1000, 768_000)
CHANNELS = 256
LONGEST = 1 << 30


def decode(clip: Clip) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a clip at the sample rate of its file, averaged over channels.

    An excerpt equals the same samples of the whole file. The length that a header declares is not
    trusted: a file is read to its end, and must not end earlier than declared.

    Parameters
    ----------
    clip
        The file, and the excerpt of it.

    Returns
    -------
    Samples of shape (samples,), float32, nominally in [-1, 1], with magnitudes of at most 8; and
    their sample rate in Hz. (`resample` clips them to [-1, 1].)

    Raises
    ------
    ClipError
        If the file is missing, empty, damaged, not in a supported format, or ends before the
        length that it declares; if its rate is not between 1 and 768 kHz, it has more than 256
        channels, or the clip more than 2**30 samples; if the clip is shorter than 25 ms, begins
        after the end of the file, or has values that are not finite or exceed 8; or if its
        channels cancel when they are averaged.
    """
    path = clip.path
    with open_audio(path) as stream:
        check_format(path, stream)
        rate = stream.rate
        start, stop = bounds(clip, rate)
        signal = _read_mono(path, stream, start, stop)
        if not len(signal):
            raise nothing_left(clip, stream)
        if len(signal) < SHORTEST_S * rate:
            raise DecodeError(
                f"{path} has {len(signal)} samples ({len(signal) / rate * 1000:.1f} ms), "
                f"expected at least {SHORTEST_S * 1000:.0f} ms"
            )
        peak = max(float(signal.max()), -float(signal.min()))
        if not np.isfinite(peak):
            bad = int(np.flatnonzero(~np.isfinite(signal))[0])
            raise DecodeError(f"{path} has a value that is not finite at {bad / rate:.3f} s")
        if peak > PEAK:
            raise DecodeError(f"{path}: {too_loud(peak)}")
        if stream.channels > 1 and may_cancel(peak):
            _check_cancellation(path, stream, start, start + len(signal), peak)
    return signal, rate


def bounds(clip: Clip, rate: int) -> tuple[int, int | None]:
    """First sample of a clip in its file, and the end (exclusive; None for the end of the file)."""
    start = _sample(clip.start_s, rate)
    return start, None if clip.duration_s is None else start + _sample(clip.duration_s, rate)


def _sample(seconds: float, rate: int) -> int:
    """The sample nearest to a time; limited, because any number may be given."""
    return round(min(seconds * rate, 2.0**60))


def check_format(path: Path, stream: Stream) -> None:
    """Check the sample rate and the number of channels.

    Raises
    ------
    ClipError
        If one of them is out of bounds.
    """
    if not RATES[0] <= stream.rate <= RATES[1]:
        raise DecodeError(
            f"{path} declares a rate of {stream.rate} Hz, expected {RATES[0]} to {RATES[1]} Hz; "
            "its header is damaged, or correct it with sox"
        )
    if not 1 <= stream.channels <= CHANNELS:
        raise DecodeError(f"{path} declares {stream.channels} channels, expected 1 to {CHANNELS}")


def length(stream: Stream) -> int:
    """Number of samples of a stream: as declared if that is plausible, else counted."""
    if stream.samples is not None and 0 < stream.samples <= LONGEST:
        return stream.samples
    return sum(len(block) for block in stream.blocks(0, None))


def nothing_left(clip: Clip, stream: Stream) -> ClipError:
    """The error for a clip without samples."""
    samples = length(stream)
    if not samples:
        size = clip.path.stat().st_size
        return DecodeError(f"{clip.path} ({size} bytes) has no samples: it lasts 0 s")
    lasts = samples / stream.rate
    return DecodeError(
        f"{clip.path} lasts {lasts:.3f} s, nothing is left at start_s {clip.start_s:g}"
    )


def _read_mono(path: Path, stream: Stream, start: int, stop: int | None) -> npt.NDArray[np.float32]:
    """Samples `start` to `stop`, averaged over channels; shape (samples,)."""
    blocks, count = [], 0
    for block in stream.blocks(start, stop):
        blocks.append(downmix(block))
        count += len(block)
        if count > LONGEST:
            raise DecodeError(
                f"{path}: a clip of more than {LONGEST} samples "
                f"({LONGEST / stream.rate / 3600:.1f} h); cut it into clips with start_s and "
                "duration_s"
            )
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def downmix(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean over channels of a block of shape (frames, channels)."""
    mono: npt.NDArray[np.float32]
    if block.shape[1] == 1:
        mono = block[:, 0]
    elif block.shape[1] == 2:  # the same bits as the mean, in a fifth of its time
        mono = (block[:, 0] + block[:, 1]) * np.float32(0.5)
    else:
        mono = block.mean(axis=1)
    return mono


def _check_cancellation(path: Path, stream: Stream, start: int, stop: int, peak: float) -> None:
    """Raise an error if the channels cancel each other; reads the clip again."""
    loudest = max(float(np.abs(block).max()) for block in stream.blocks(start, stop))
    if reason := cancellation(peak, loudest):
        raise DecodeError(f"{path}: {reason}")


def resample(
    signal: npt.NDArray[np.float32], rate: int, target: int, method: Resampler = "soxr_hq"
) -> npt.NDArray[np.float32]:
    """Resample a signal.

    Parameters
    ----------
    signal
        Shape (samples,), float32.
    rate, target
        Sample rates of the signal and of the result, in Hz.
    method
        ``soxr_hq`` (20 bit), ``soxr_vhq`` (28 bit), or ``kaiser_best`` of resampy, which
        the published VGGish and OpenL3 packages use. They differ by up to a few
        percent in log-mel values, so the choice is stored with every shard.

    Returns
    -------
    Shape (about samples * target / rate,), float32, at least one sample, clipped to [-1, 1], so
    that extractors and classifiers receive the same signal whether or not it was stored as
    integers in between.

    Raises
    ------
    UsageError
        If resampy is required but not installed.
    """
    if rate != target and method == "kaiser_best":
        try:
            import resampy
        except ImportError:
            raise UsageError(
                "--resampler kaiser_best needs resampy: pip install '.[resampy]' in featreg's "
                "repository"
            ) from None
        signal = resampy.resample(signal, rate, target, filter="kaiser_best")
    elif rate != target:
        quality = method.removeprefix("soxr_").upper()
        signal = soxr.resample(signal, rate, target, quality=quality)
    if len(signal) and (signal.max() > 1 or signal.min() < -1):
        return np.clip(signal, -1, 1)
    return signal


def fingerprint(clip: Clip) -> str:
    """Hash of the bounds of the excerpt, the size of the file, and its first and last 64 KiB.

    It is equal for a copy of the file and differs for an edited one. Empty without a file.
    """
    try:
        if not clip.path.is_file():  # opening a named pipe would wait for its writer
            return ""
        with clip.path.open("rb") as file:
            digest = hashlib.blake2b(f"{clip.start_s} {clip.duration_s}".encode(), digest_size=16)
            head = file.read(1 << 16)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - (1 << 16)))
            digest.update(head + file.read() + str(size).encode())
            return digest.hexdigest()
    except OSError:
        return ""
