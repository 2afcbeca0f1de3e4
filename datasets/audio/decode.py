"""Audio files to mono signals: decode, downmix, resample."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..base import Clip, ClipError, UsageError
from .files import open_audio

# Raised by a release that decodes or resamples to other samples: what heard those is done again.
REVISION = 1

Resampler = Literal["soxr_hq", "soxr_vhq", "kaiser_best"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)

# One frame of a 25 ms short-time transform: anything shorter is a broken file, not audio.
SHORTEST_S = 0.025

# An mp3 may declare a few frames more than it holds, which an editor cut off.
_SLACK_S = 0.5

_BLOCK = 1 << 18


def decode(clip: Clip) -> tuple[npt.NDArray[np.float32], int]:
    """The clip's samples, averaged over channels, at the file's own rate.

    Parameters
    ----------
    clip
        Names the file and the excerpt of it.

    Returns
    -------
    Samples of shape (samples,), float32, nominally in [-1, 1]; and their rate in Hz.

    Raises
    ------
    ClipError
        If the file is missing, empty, unreadable, breaks off before the length that
        it declares, is shorter than 25 ms, or holds values that are not finite.
    """
    path = clip.path
    with open_audio(path) as (file, samples):
        rate = int(file.samplerate)
        start = round(clip.start_s * rate)
        wanted = samples - start
        if clip.duration_s is not None:
            wanted = min(wanted, round(clip.duration_s * rate))
        if wanted <= 0:
            raise ClipError(
                "decode",
                f"{path} lasts {samples / rate:.3f} s, nothing is left at {clip.start_s} s",
            )
        file.seek(start)
        signal = _read_mono(file, wanted)
    if len(signal) < wanted - _SLACK_S * rate:
        raise ClipError(
            "decode",
            f"{path} breaks off: its header declares {samples / rate:.2f} s, "
            f"{(start + len(signal)) / rate:.2f} s could be decoded",
        )
    if len(signal) < SHORTEST_S * rate:
        raise ClipError(
            "decode",
            f"{path} holds {len(signal)} samples ({len(signal) / rate * 1000:.1f} ms), "
            f"expected at least {SHORTEST_S * 1000:.0f} ms",
        )
    if not np.isfinite(signal).all():
        bad = int(np.flatnonzero(~np.isfinite(signal))[0])
        raise ClipError("decode", f"{path} holds a value that is not finite at {bad / rate:.3f} s")
    return signal, rate


def _read_mono(file: soundfile.SoundFile, frames: int) -> npt.NDArray[np.float32]:
    """At most `frames` frames from here on, averaged over channels block by block."""
    blocks = []
    while frames > 0:
        block = file.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(downmix(block))
        frames -= len(block)
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
    Shape (about samples * target / rate,), float32, at least one sample.
    """
    if rate == target:
        return signal
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
