"""Audio files to mono signals: decode, downmix, resample."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import soxr

from ..base import Clip, ClipError, UsageError
from .files import open_audio
from .levels import PEAK, cancellation, may_cancel, too_loud
from .stream import Stream

# Raised by a release that decodes or resamples to other samples: what was computed from those is
# computed again.
REVISION = 2

Resampler = Literal["soxr_hq", "soxr_vhq", "kaiser_best"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)

# One frame of a 25 ms short-time transform: anything shorter is a broken file, not audio.
SHORTEST_S = 0.025

# Rates in Hz, numbers of channels, and samples of a clip, beyond which a header is wrong, or
# memory would not suffice. (The longest clip lasts 6.2 h at 48 kHz.)
RATES = (1000, 768_000)
CHANNELS = 256
LONGEST = 1 << 30


def decode(clip: Clip) -> tuple[npt.NDArray[np.float32], int]:
    """The clip's samples, averaged over channels, at the file's own rate.

    An excerpt equals the same samples of the whole file. The length that a header declares is not
    trusted: a file is read to its end, and must not end earlier than declared.

    Parameters
    ----------
    clip
        Names the file and the excerpt of it.

    Returns
    -------
    Samples of shape (samples,), float32, nominally in [-1, 1], their magnitude at most 8; and
    their rate in Hz. (`resample` clips them to [-1, 1].)

    Raises
    ------
    ClipError
        If the file is missing, empty, damaged, in no supported format, or breaks off before the
        length that it declares; if its rate is not between 1 and 768 kHz, it has more than 256
        channels, or the clip more than 2**30 samples; if the clip is shorter than 25 ms, begins
        behind the file's end, or has values that are not finite or exceed 8; or if its channels
        cancel when they are averaged.
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
            raise ClipError(
                "decode",
                f"{path} has {len(signal)} samples ({len(signal) / rate * 1000:.1f} ms), "
                f"expected at least {SHORTEST_S * 1000:.0f} ms",
            )
        peak = max(float(signal.max()), -float(signal.min()))
        if not np.isfinite(peak):
            bad = int(np.flatnonzero(~np.isfinite(signal))[0])
            raise ClipError(
                "decode", f"{path} has a value that is not finite at {bad / rate:.3f} s"
            )
        if peak > PEAK:
            raise ClipError("decode", f"{path}: {too_loud(peak)}")
        if stream.channels > 1 and may_cancel(peak):
            _check_cancellation(path, stream, start, start + len(signal), peak)
    return signal, rate


def bounds(clip: Clip, rate: int) -> tuple[int, int | None]:
    """First sample of a clip in its file, and the one after its last; None for the file's end."""
    start = _sample(clip.start_s, rate)
    return start, None if clip.duration_s is None else start + _sample(clip.duration_s, rate)


def _sample(seconds: float, rate: int) -> int:
    """The sample nearest to a time, which may be too large for an integer of 64 bits."""
    return round(min(seconds * rate, 2.0**60))


def check_format(path: Path, stream: Stream) -> None:
    """Refuse what no recording is.

    Raises
    ------
    ClipError
        If rate or number of channels is out of bounds.
    """
    if not RATES[0] <= stream.rate <= RATES[1]:
        raise ClipError(
            "decode",
            f"{path} declares a rate of {stream.rate} Hz, expected {RATES[0]} to {RATES[1]} Hz; "
            "its header is damaged, or correct it with sox",
        )
    if not 1 <= stream.channels <= CHANNELS:
        raise ClipError(
            "decode",
            f"{path} declares {stream.channels} channels, expected 1 to {CHANNELS}",
        )


def length(stream: Stream) -> int:
    """Samples of a stream: as declared where that is plausible, else counted."""
    if stream.samples is not None and 0 < stream.samples <= LONGEST:
        return stream.samples
    return sum(len(block) for block in stream.blocks(0, None))


def nothing_left(clip: Clip, stream: Stream) -> ClipError:
    """Why a clip has no samples."""
    samples = length(stream)
    if not samples:
        size = clip.path.stat().st_size
        return ClipError("decode", f"{clip.path} ({size} bytes) has no samples: it lasts 0 s")
    lasts = samples / stream.rate
    return ClipError(
        "decode",
        f"{clip.path} lasts {lasts:.3f} s, nothing is left at start_s {clip.start_s:g}",
    )


def _read_mono(path: Path, stream: Stream, start: int, stop: int | None) -> npt.NDArray[np.float32]:
    """Samples `start` to `stop`, averaged over channels block by block."""
    blocks, count = [], 0
    for block in stream.blocks(start, stop):
        blocks.append(downmix(block))
        count += len(block)
        if count > LONGEST:
            raise ClipError(
                "decode",
                f"{path}: a clip of more than {LONGEST} samples "
                f"({LONGEST / stream.rate / 3600:.1f} h); cut it into clips with start_s and "
                "duration_s",
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
    """Refuse a clip whose channels are there, and whose mean is not: read once more to see."""
    loudest = max(float(np.abs(block).max()) for block in stream.blocks(start, stop))
    if reason := cancellation(peak, loudest):
        raise ClipError("decode", f"{path}: {reason}")


def resample(
    signal: npt.NDArray[np.float32], rate: int, target: int, method: Resampler = "soxr_hq"
) -> npt.NDArray[np.float32]:
    """The signal at another rate.

    Parameters
    ----------
    signal
        Shape (samples,), float32.
    rate, target
        In Hz.
    method
        ``soxr_hq`` (20 bit), ``soxr_vhq`` (28 bit), or ``kaiser_best`` of resampy, which
        the published VGGish and OpenL3 packages use. They differ by up to a few
        percent in log-mel values, so the choice is stored with every shard.

    Returns
    -------
    Shape (about samples * target / rate,), float32, at least one sample, clipped to [-1, 1] as a
    fixed-point player does: extractors and classifiers receive the same signal, whether it is
    stored as integers between them or not.
    """
    return _clipped(signal if rate == target else _resampled(signal, rate, target, method))


def _clipped(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if len(signal) and (signal.max() > 1 or signal.min() < -1):
        return np.clip(signal, -1, 1)
    return signal


def _resampled(
    signal: npt.NDArray[np.float32], rate: int, target: int, method: Resampler
) -> npt.NDArray[np.float32]:
    if method == "kaiser_best":
        try:
            import resampy
        except ImportError:
            raise UsageError(
                "--resampler kaiser_best needs resampy: pip install '.[resampy]' in featreg's "
                "repository"
            ) from None
        resampled: npt.NDArray[np.float32] = resampy.resample(
            signal, rate, target, filter="kaiser_best"
        )
    else:
        resampled = soxr.resample(
            signal, rate, target, quality=method.removeprefix("soxr_").upper()
        )
    return resampled


def fingerprint(clip: Clip) -> str:
    """What the clip's file holds, without reading all of a long one.

    Hash of the excerpt's bounds, the file's size and its first and last 64 KiB;
    empty if there is no such file. Equal for a copied file, other for an edited one.
    """
    try:
        if not clip.path.is_file():  # to open a named pipe is to wait for its writer
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
