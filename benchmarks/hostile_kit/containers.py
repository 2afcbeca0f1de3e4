"""Every container and coding that soundfile can write: whole, in excerpts, and truncated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import soundfile

from .cases import Case, Kit, Result
from .judge import MAY_REFUSE, MUST_ACCEPT, MUST_REFUSE, Expected, judge
from .signals import (
    ACCURACY,
    Array,
    differs,
    differs_locally,
    excess,
    level,
    mono,
    sweep,
    write,
)

# Rate and channels, the first that a coding takes is used.
_PARAMETERS = ((16000, 2), (16000, 1), (8000, 1), (44100, 1))

# Nothing in these says how long the file was to be: cut off, they are shorter files. (The header
# of SD2 is a file of its own, which gives rate, channels and width.)
_NO_LENGTH = {"IRCAM", "PAF", "PVF", "SD2", "XI"}

# Headers that keep a rate as a period, in microseconds or so.
_PERIODS = {"HTK", "SDS", "VOC"}

# One sample, as decoders of lossy codings may differ after a seek and between versions.
_LOSSY = 5e-3


@dataclass(frozen=True)
class Coding:
    """A container, a coding, and the first supported rate and channels."""

    container: str
    subtype: str
    endian: str
    rate: int
    channels: int

    @property
    def name(self) -> str:
        """``WAV-PCM_16``."""
        return "-".join(filter(None, (self.container, self.subtype, self.endian.lower())))

    def write(self, path: Path, signal: Array, rate: int = 0) -> Path:
        """Write a signal of shape (samples, channels)."""
        options = {"subtype": self.subtype, "endian": self.endian or None}
        return write(path, signal, rate or self.rate, format=self.container, **options)

    def is_rate(self, found: int, rate: int) -> bool:
        """Whether a rate is the one that was written, as far as the header can say it."""
        return abs(found - rate) <= (0.01 * rate if self.container in _PERIODS else 0)

    def excess(self, signal: Array, rate: int = 0) -> int:
        """Samples by which the last block of a signal, (samples, channels), may be filled up."""
        return excess(self.container, self.subtype, rate or self.rate, signal.shape[1])

    @property
    def must(self) -> str:
        """Whether an intact file is accepted: libsndfile decodes some ALAC to other samples."""
        return MUST_REFUSE if self.subtype.startswith("ALAC") else MUST_ACCEPT

    @property
    def accuracy(self) -> float:
        """Largest relative error; libsndfile's SDS keeps about 6 bits."""
        return 0.1 if self.container == "SDS" else ACCURACY[self.subtype]


@lru_cache
def codings(folder: Path) -> tuple[Coding, ...]:
    """All containers and codings that can be written, except RAW, which has no header."""
    found = []
    for container in soundfile.available_formats():
        if container == "RAW":
            continue
        for subtype in soundfile.available_subtypes(container):
            plain = [Coding(container, subtype, "", *each) for each in _PARAMETERS]
            turned = [Coding(container, subtype, "BIG", 16000, 1)]
            turned += [Coding(container, subtype, "LITTLE", 16000, 1)]
            usual = next((each for each in plain if _writable(each, folder)), None)
            if usual is not None:
                found.append(usual)
                if container in ("WAV", "AIFF", "CAF", "AU"):
                    found += [each for each in turned if _writable(each, folder)]
    return tuple(found)


def _writable(coding: Coding, folder: Path) -> bool:
    path = folder / "try"
    try:
        coding.write(path, sweep(0.5, coding.rate, coding.channels))
        with soundfile.SoundFile(path) as file:  # some containers know one rate alone
            return len(file) > 0 and coding.is_rate(file.samplerate, coding.rate)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, OSError):
        return False
    finally:
        path.unlink(missing_ok=True)


def is_signal(coding: Coding, signal: Array, rate: int) -> Expected:
    """Whether samples match a signal that was written with a coding."""

    def why(found: Array, at: int) -> str:
        if not coding.is_rate(at, rate):
            return f"rate {at} instead of {rate} Hz"
        return differs(found, mono(signal), coding.accuracy, coding.excess(signal, rate))

    return why


def whole(kit: Kit) -> Iterator[Case]:
    """Kind 1: every coding decodes to its full length."""
    lengths = kit.count(3, 1)
    for coding in codings(kit.folder):
        for seconds, rate, channels in (
            (1.0, coding.rate, coding.channels),
            (0.371, coding.rate, 1),
            (1.203, 48000, coding.channels),
        )[:lengths]:
            case = partial(_whole, coding, seconds, rate, channels, kit.seed)
            yield Case(f"{coding.name}-{seconds}s-{rate}x{channels}", case)


def _whole(
    coding: Coding, seconds: float, rate: int, channels: int, seed: int, folder: Path
) -> Result:
    signal = sweep(seconds, rate, channels, seed)
    path = folder / f"clip.{coding.container.lower()}"
    try:
        coding.write(path, signal, rate)
        taken = coding.is_rate(soundfile.info(path).samplerate, rate)
    except (soundfile.LibsndfileError, RuntimeError):
        taken = False
    if not taken:
        signal, rate = sweep(seconds, coding.rate, coding.channels, seed), coding.rate
        coding.write(path, signal)
    return judge(path, is_signal(coding, signal, rate), coding.must)


def excerpts(kit: Kit) -> Iterator[Case]:
    """Kind 2: an excerpt is the slice of the whole, wherever it starts."""
    for coding in codings(kit.folder):
        if kit.quick and coding.subtype not in ("VORBIS", "OPUS", "PCM_16", "MPEG_LAYER_III"):
            continue
        for number in range(kit.count(6, 2)):
            name = f"{coding.name}-{number}"
            yield Case(name, partial(_excerpt, kit, coding, number))


def _excerpt(kit: Kit, coding: Coding, number: int, folder: Path) -> Result:
    rng = kit.random("excerpt", coding.name, number)
    seconds = rng.uniform(0.8, 5.0)
    signal = sweep(seconds, coding.rate, coding.channels, number)
    path = coding.write(folder / f"clip.{coding.container.lower()}", signal)
    # Near the end as often as anywhere: that is where seeking goes wrong.
    start_s = rng.choice([rng.uniform(0, seconds - 0.1), seconds - rng.uniform(0.1, 0.6)])
    length_s = rng.choice([None, rng.uniform(0.05, seconds)])
    start = round(start_s * coding.rate)
    stop = len(signal) if length_s is None else start + round(length_s * coding.rate)
    truth = mono(signal)[start:stop]
    end = coding.excess(signal) if stop >= len(signal) else 0
    loud = level(mono(signal))

    def why(found: Array, rate: int) -> str:
        return differs(found, truth, coding.accuracy * 2, end, loud)

    result = judge(path, why, coding.must, start_s, length_s)
    where = f" (start_s {start_s:.4f}, duration_s {length_s} of {seconds:.3f} s)"
    return Result(result.outcome, result.detail and result.detail + where)


def truncated(kit: Kit) -> Iterator[Case]:
    """Kind 4: a truncated file is rejected, or decodes completely."""
    fractions = [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.999]
    for coding in codings(kit.folder):
        rng = kit.random("truncated", coding.name)
        if kit.quick and (coding.endian or rng.random() > 0.4):
            continue
        chosen = [*fractions, rng.random(), rng.random()]
        for fraction in rng.sample(chosen, kit.count(6, 2)):
            yield Case(f"{coding.name}-{fraction:.3f}", partial(_cut, kit, coding, fraction))


def _cut(kit: Kit, coding: Coding, fraction: float, folder: Path) -> Result:
    signal = sweep(1.5, coding.rate, coding.channels, kit.seed)
    path = coding.write(folder / f"clip.{coding.container.lower()}", signal)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(fraction * len(data)))])
    all_of_it = is_signal(coding, signal, coding.rate)

    def why(found: Array, rate: int) -> str:
        if coding.container in _NO_LENGTH and len(found) <= len(signal):
            found = found[: max(0, len(found) - 2 * coding.excess(signal))]
            return differs(found, mono(signal)[: len(found)], coding.accuracy)
        return all_of_it(found, rate)

    return judge(path, why, MAY_REFUSE)


def is_same(truth: Array, rate: int, lossless: bool) -> Expected:
    """Whether samples equal those decoded before the file was damaged."""

    def why(found: Array, at: int) -> str:
        if at != rate:
            return f"rate {at} instead of {rate} Hz"
        return differs_locally(found, truth, 1e-6 if lossless else _LOSSY)

    return why


def plain(path: Path) -> tuple[Array, int]:
    """The whole file read by soundfile from its start, and averaged over its channels."""
    with _Forward(path) as file:
        samples = file.read(file.frames, always_2d=True)
        return np.asarray(samples.mean(axis=1)), int(file.samplerate)


class _Forward(soundfile.SoundFile):
    """A file that soundfile does not reposition after it has read: some codings cannot."""

    def seekable(self) -> bool:
        return False
