"""Kind 3: one flipped bit, anywhere in a file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from .cases import Case, Kit, Result
from .containers import is_same, plain
from .judge import Expected, judge
from .mp3_headers import begins_after
from .signals import ACCURACY, Array, differs, mono, sweep, write

_RATE = 16000
_WAV_HEADER = 44
_FORMATS = {
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
}


def cases(kit: Kit) -> Iterator[Case]:
    """Positions across each file, and every bit of its first bytes."""
    for suffix in _FORMATS:
        size = len(_file(kit, suffix)[0])
        rng = kit.random("flip", suffix)
        places = [rng.randrange(8 * size) for _ in range(kit.count(200, 12))]
        places += rng.sample(range(8 * 48), kit.count(100, 6))
        if suffix == "mp3":  # headers of frames, on which the place of all others depends
            frames = [8 * size * k // 37 // 8 * 8 for k in range(1, 37)]  # of one size each
            places += [rng.choice(frames) + rng.randrange(32) for _ in range(kit.count(200, 6))]
        for place in sorted(set(places)):
            yield Case(f"{suffix}-{place}", partial(_flip, kit, suffix, place))


@lru_cache
def _file(kit: Kit, suffix: str) -> tuple[bytes, Array, Array]:
    """The bytes of an intact file, how it decodes, and the signal in it."""
    container, subtype = _FORMATS[suffix]
    signal = sweep(1.2, _RATE, 1, kit.seed)
    # Of a constant bit rate, a place in the file is a time.
    rate = {"bitrate_mode": "CONSTANT", "compression_level": 0.5} if suffix == "mp3" else {}
    path = kit.folder / f"whole.{suffix}"
    write(path, signal, _RATE, format=container, subtype=subtype, **rate)
    decoded, _ = plain(path)
    if why := differs(decoded, mono(signal), ACCURACY[subtype]):
        raise AssertionError(f"{path} is no base for damage: {why}")
    return path.read_bytes(), decoded, mono(signal)


def _flip(kit: Kit, suffix: str, place: int, folder: Path) -> Result:
    whole, truth, _ = _file(kit, suffix)
    data = bytearray(whole)
    data[place // 8] ^= 1 << place % 8
    path = folder / f"clip.{suffix}"
    path.write_bytes(data)
    expected: Expected = is_same(truth, _RATE, suffix in ("flac", "wav", "aiff"))
    if suffix == "wav" and place // 8 >= _WAV_HEADER:  # no checksum: the samples as they are
        samples = np.frombuffer(data[_WAV_HEADER:], "<i2") / 32768
        expected = is_same(samples, _RATE, True)
    if suffix == "aiff" and place // 8 >= len(data) - 2 * len(truth):
        samples = np.frombuffer(data[-2 * len(truth) :], ">i2") / 32768
        expected = is_same(samples, _RATE, True)
    if suffix == "aiff" and 28 <= place // 8 < 38:  # the rate, which stands there alone
        return judge(path, lambda found, rate: is_same(truth, rate, True)(found, rate))
    if suffix == "mp3":  # no checksum either, but frames whose places are known
        name = whole.index(b"Info")
        in_tag = place // 8 < 4 or name <= place // 8 < name + 4
        expected = _near(truth, place / 8 / len(whole), in_tag)
    return judge(path, expected)


def _near(truth: Array, where: float, in_tag: bool) -> Expected:
    """Whether samples are correct except for frames around a position in the file.

    Frames have no checksum. One of them is 576 samples, lends its bytes to the two behind it,
    and overlaps the next. Where the frame in front is not known for a tag any more, because its
    header or the name ``Info`` is damaged, it is a silent frame, and nothing says how much of
    the beginning is an encoder's delay: then all is there, but later. (The rest of a tag has a
    checksum.)
    """
    middle, reach = round(where * len(truth)), 6 * 576
    later = begins_after((0, 576, 1105, 1681), truth, _RATE, 0.1)

    def why(found: Array, rate: int) -> str:
        if rate != _RATE:
            return f"rate {rate} instead of {_RATE} Hz"
        if in_tag and not later(found, rate):
            return ""
        apart = found.copy()
        if len(found) == len(truth):
            inside = slice(max(0, middle - reach), middle + reach)
            apart[inside] = truth[inside]
        return is_same(truth, _RATE, False)(apart, rate)

    return why
