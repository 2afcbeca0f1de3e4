"""Kind 5: concatenated files, as from recorded streams and simple tools."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from .cases import Case, Kit, Result
from .judge import MAY_REFUSE, MUST_ACCEPT, judge
from .signals import ACCURACY, Array, differs, find, mono, sweep, write

_RATE = 16000
_CODINGS = {
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "wav": ("WAV", "PCM_16"),
}
# Seconds, rate and channels of each part.
_PARTS = {
    "two": ((1.0, _RATE, 1), (1.0, _RATE, 1)),
    "short": ((1.0, _RATE, 1), (0.2, _RATE, 1)),
    "three": ((0.5, _RATE, 1), (0.8, _RATE, 1), (0.6, _RATE, 1)),
    "stereo": ((0.7, _RATE, 2), (0.9, _RATE, 2)),
    "channels": ((1.0, _RATE, 1), (1.0, _RATE, 2)),
    "fewer-channels": ((1.0, _RATE, 2), (1.0, _RATE, 1)),
    "rate": ((1.0, _RATE, 1), (1.0, 24000, 1)),
    "lower-rate": ((1.0, 24000, 1), (1.0, 8000, 1)),
}
_TAILS = {
    "zeros": bytes(5000),
    "text": b"This is no audio. " * 300,
    "id3v1": b"TAG" + b"title".ljust(125, b"\0"),
    "ape": b"APETAGEX" + bytes(24) + b"APETAGEX" + bytes(24),
    "one-byte": b"\n",
    "half": b"",  # the first half of the same file
}


def cases(kit: Kit) -> Iterator[Case]:
    """Each format after itself, after another format, and before data that are not audio."""
    for suffix in _CODINGS:
        for name in list(_PARTS)[:: kit.count(1, 3)]:
            for seed in range(kit.count(3, 1)):
                case = partial(_chain, (suffix,), name, kit.seed + seed)
                yield Case(f"{suffix}-{name}-{seed}", case)
        for tail in list(_TAILS)[:: kit.count(1, 2)]:
            yield Case(f"{suffix}-then-{tail}", partial(_tail, suffix, tail, kit.seed))
    for pair in permutations(_CODINGS, 2):
        yield Case("+".join(pair), partial(_chain, pair, "two", kit.seed))


def _chain(suffixes: tuple[str, ...], name: str, seed: int, folder: Path) -> Result:
    path = folder / f"clip.{suffixes[0]}"
    data, signals, rates, accuracy = b"", [], [], 0.0
    for number, (seconds, rate, channels) in enumerate(_PARTS[name]):
        container, subtype = _CODINGS[suffixes[number % len(suffixes)]]
        signal = sweep(seconds, rate, channels, seed + number)
        part = write(folder / f"part-{number}", signal, rate, format=container, subtype=subtype)
        data += part.read_bytes()
        signals.append(mono(signal))
        rates.append(rate)
        accuracy = max(accuracy, ACCURACY[subtype])
    path.write_bytes(data)
    same = len(set(rates)) == 1

    def why(found: Array, rate: int) -> str:
        if suffixes == ("mp3",) and same:
            return _joined(found, signals, accuracy)
        if not same:
            lasts, truly = len(found) / rate, sum(map(len, signals)) / 1.0
            truly = sum(len(each) / at for each, at in zip(signals, rates, strict=True))
            return "" if abs(lasts - truly) < 0.02 else f"{lasts:.3f} s instead of {truly:.3f} s"
        return differs(found, np.concatenate(signals), accuracy * 1.5)

    return judge(path, why, MAY_REFUSE)


def _joined(found: Array, signals: list[Array], accuracy: float) -> str:
    """All signals in order; an encoder's delay and padding may remain between two mp3 files."""
    place = 0
    for number, signal in enumerate(signals):
        late, off = find(found[place + 200 :], signal[200:-200], 4000 if number else 1)
        if late < 0 or off > accuracy * 1.5:
            return f"part {number + 1} of {len(signals)} is not there: {len(found)} samples"
        place += late + len(signal)
    return "" if len(found) <= place + 4000 else f"{len(found)} samples, expected {place}"


def _tail(suffix: str, tail: str, seed: int, folder: Path) -> Result:
    container, subtype = _CODINGS[suffix]
    signal = sweep(1.0, _RATE, 1, seed)
    path = folder / f"clip.{suffix}"
    write(path, signal, _RATE, format=container, subtype=subtype)
    data = path.read_bytes()
    path.write_bytes(data + (_TAILS[tail] or data[: len(data) // 2]))

    more = len(signal) if suffix == "mp3" and tail == "half" else 0  # which goes on so

    def why(found: Array, rate: int) -> str:
        return differs(found, mono(signal), ACCURACY[subtype], more)

    # A tag of a few bytes at the end is usual, and no reason to refuse.
    usual = tail in ("id3v1", "one-byte") and suffix in ("mp3", "wav", "ogg")
    return judge(path, why, MUST_ACCEPT if usual else MAY_REFUSE)
