"""Signals with unique excerpts, and the error of decoded signals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

Array = npt.NDArray[np.float64]

# Largest relative error (RMS of the difference over RMS of the signal) that coding may cause,
# about twice what was measured for these signals.
ACCURACY = {
    "PCM_S8": 0.03, "PCM_U8": 0.03, "PCM_16": 2e-4, "PCM_24": 1e-6, "PCM_32": 1e-6,
    "FLOAT": 1e-6, "DOUBLE": 1e-6, "ULAW": 0.05, "ALAW": 0.05, "IMA_ADPCM": 0.1,
    "MS_ADPCM": 0.1, "GSM610": 0.5, "G721_32": 0.15, "G723_24": 0.3, "G723_40": 0.1,
    "DWVW_12": 3e-3, "DWVW_16": 2e-4, "DWVW_24": 1e-6, "NMS_ADPCM_16": 0.6,
    "NMS_ADPCM_24": 0.3, "NMS_ADPCM_32": 0.15, "ALAC_16": 2e-4, "ALAC_20": 1e-5,
    "ALAC_24": 1e-6, "ALAC_32": 1e-6, "DPCM_8": 0.1, "DPCM_16": 2e-4, "VORBIS": 0.2,
    "OPUS": 0.3, "MPEG_LAYER_I": 0.2, "MPEG_LAYER_II": 0.2, "MPEG_LAYER_III": 0.2,
}  # fmt: skip

# Coded in blocks of so many samples: the last one is filled up with zeros, and is decoded whole,
# because nothing says where the signal ends in it. (The blocks of `excess` depend on the rate.)
BLOCKS = {"GSM610": 320, "G721_32": 120, "G723_24": 120, "G723_40": 120, "NMS_ADPCM_16": 160,
          "NMS_ADPCM_24": 160, "NMS_ADPCM_32": 160}  # fmt: skip


def excess(container: str, subtype: str, rate: int, channels: int) -> int:
    """Samples by which the last block of a coding may be filled up."""
    if subtype in ("IMA_ADPCM", "MS_ADPCM"):
        if container == "AIFF":
            return 63
        limits = ((12_000, 256), (23_000, 512), (44_000, 1024), (1 << 31, 2048))
        size = next(size for limit, size in limits if rate * channels < limit)
        return 2 * size // channels
    blocks = {"PAF": 10 if subtype == "PCM_24" else 0, "VOC": 2}
    return max(BLOCKS.get(subtype, blocks.get(container, 1)) - 1, 0)


def sweep(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Array:
    """Rising sines, different in each channel, shape (samples, channels), within [-0.5, 0.5]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    top = min(2500.0, 0.15 * rate)
    columns = []
    for channel in range(channels):
        low = 150.0 * (1 + channel) * rng.uniform(0.8, 1.2)
        phase = 2 * np.pi * (low * t + 0.5 * (top - low) * t**2 / max(seconds, 0.1))
        wave = np.sin(phase + rng.uniform(0, 6)) + 0.3 * np.sin(0.37 * phase)
        columns.append(0.36 * wave * (0.8 + 0.2 * np.sin(2 * np.pi * 1.7 * t)))
    return np.stack(columns, axis=1)


def mono(signal: Array) -> Array:
    """The mean over channels, shape (samples,)."""
    return np.asarray(signal.mean(axis=1))


def write(path: Path, signal: Array, rate: int, **options: object) -> Path:
    """Write audio; the format follows the name unless `options` say otherwise."""
    soundfile.write(path, signal, rate, **options)
    return path


def level(signal: Array) -> float:
    """The RMS of a signal."""
    return float(np.sqrt(np.mean(signal**2))) if len(signal) else 0.0


def error(found: Array, truth: Array, loud: float | None = None) -> float:
    """RMS of the difference over that of the truth, or over `loud`, where both have samples."""
    n = min(len(found), len(truth))
    return level(found[:n] - truth[:n]) / max(level(truth[:n]) if loud is None else loud, 1e-9)


def differs(
    found: Array, truth: Array, accuracy: float, excess: int = 0, loud: float | None = None
) -> str:
    """How `found` is not `truth`, empty if it is: its length, its place, its values.

    Parameters
    ----------
    found, truth
        Shape (samples,).
    accuracy
        Largest relative error.
    excess
        Samples that may come after the truth.
    loud
        RMS of the signal of which the truth is a part, which may be a quiet one.
    """
    found = np.asarray(found, np.float64)
    if not len(truth) <= len(found) <= len(truth) + excess:
        return f"{len(found)} samples instead of {len(truth)}"
    here = error(found, truth, loud)
    if not here <= accuracy:
        return f"relative error {here:.3g}, expected at most {accuracy:g}"
    if len(truth) > 2000 and here > 1e-3:
        for lag in (-3, -2, -1, 1, 2, 3):
            a, b = found[max(0, lag) :], truth[max(0, -lag) :]
            if error(a[: len(truth) - 8], b[: len(truth) - 8], loud) < 0.8 * here:
                return f"shifted by {lag} samples"
    return ""


def differs_locally(found: Array, truth: Array, tolerance: float) -> str:
    """The same for two decodings of one file: no sample may be off by more than `tolerance`."""
    if len(found) != len(truth):
        return f"{len(found)} samples instead of {len(truth)}"
    off = np.flatnonzero(~(np.abs(found - truth) <= tolerance))
    if len(off):
        worst = float(np.nanmax(np.abs(found - truth)))
        return f"{len(off)} samples from {off[0]} to {off[-1]} are off, by up to {worst:.3g}"
    return ""


def find(found: Array, truth: Array, most: int) -> tuple[int, float]:
    """Where in `found`, at most `most` samples late, `truth` begins; and the error there.

    The place is that of the largest correlation; -1 if there is no room for `truth`.
    """
    lags = min(most, len(found) - len(truth))
    if lags < 0:
        return -1, float("inf")
    size = 1 << (len(truth) + lags).bit_length()
    spectrum = np.fft.rfft(found[: len(truth) + lags], size) * np.fft.rfft(truth, size).conj()
    lag = int(np.argmax(np.fft.irfft(spectrum, size)[: lags + 1]))
    return lag, error(found[lag:], truth)
