"""Kind 8: mp3 files with headers and tags of various encoders, editors and broadcasters."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .cases import Case, Kit, Result
from .judge import MAY_REFUSE, MUST_ACCEPT, Expected, judge
from .signals import Array, find, mono, sweep, write

# What an encoder and a decoder put before the first sample, where no tag says how much.
_DELAY = 1105
_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_LOW_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def frames(data: bytes) -> list[bytes]:
    """The frames of an mp3 that begins with one, by the headers' own arithmetic."""
    found, place = [], 0
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] & 0xE0 == 0xE0:
        version, second = data[place + 1] >> 3 & 3, data[place + 2]
        table, samples = (_KBPS, 1152) if version == 3 else (_LOW_KBPS, 576)
        rate = _RATES[version][second >> 2 & 3]
        size = samples // 8 * 1000 * table[second >> 4] // rate + (second >> 1 & 1)
        if place + size > len(data):
            break
        found.append(data[place : place + size])
        place += size
    return found


def _tag(frame: bytes) -> int:
    """Where ``Xing`` or ``Info`` stands in the first frame."""
    return max(frame.find(b"Info"), frame.find(b"Xing"))


def _no_tag(data: bytes) -> bytes:
    return b"".join(frames(data)[1:])


def _count(value: Callable[[int], int], data: bytes) -> bytes:
    """Another number of frames in the tag."""
    changed, place = bytearray(data), _tag(data[:2000]) + 8
    (count,) = struct.unpack_from(">I", changed, place)
    struct.pack_into(">I", changed, place, value(count) & 0xFFFFFFFF)
    return _no_checksum(bytes(changed))


def _no_checksum(data: bytes) -> bytes:
    """As an encoder leaves LAME's tag that takes no checksum of it."""
    at = data.index(b"LAME") + 34
    return data[:at] + bytes(2) + data[at + 2 :]


def _flags(flags: int, data: bytes) -> bytes:
    """A tag with other fields: those of 15 that `flags` names, what follows moves up."""
    first, *others = frames(data)
    place = _tag(first)
    fields = first[place + 8 :]
    kept = b"".join(
        fields[start:stop]
        for bit, start, stop in ((1, 0, 4), (2, 4, 8), (4, 8, 108), (8, 108, 112))
        if flags & bit
    )
    tag = first[: place + 4] + struct.pack(">I", flags) + kept + fields[112:]
    return _no_checksum(tag.ljust(len(first), b"\0")) + b"".join(others)


def _vbri(data: bytes) -> bytes:
    """The tag of Fraunhofer's encoder in place of LAME's, 32 bytes behind the header."""
    first, *others = frames(data)
    total = sum(map(len, others))
    tag = b"VBRI" + struct.pack(">HHHIIHHHH", 1, _DELAY, 75, total, len(others), 1, 1, 2, 1)
    head = first[:4] + bytes(32)
    return (head + tag).ljust(len(first), b"\0")[: len(first)] + b"".join(others)


def _id3(size: int, declared: int | None = None, footer: bool = False) -> Callable[[bytes], bytes]:
    """An ID3v2 tag of so many bytes before the audio."""
    told = size if declared is None else declared
    syncsafe = bytes(told >> shift & 0x7F for shift in (21, 14, 7, 0))
    head = b"ID3\x04\0" + (b"\x10" if footer else b"\0") + syncsafe
    tail = b"3DI" + head[3:] if footer else b""
    return lambda data: head + bytes(size) + tail + data


def _free(data: bytes) -> bytes:
    """Free format: no frame says its bit rate, all have one size."""
    changed = [each[:2] + bytes((each[2] & 0x0D,)) + each[3:] for each in frames(data)[1:]]
    size = min(map(len, changed))
    return b"".join(each[:size] for each in changed)


def _middle(junk: bytes) -> Callable[[bytes], bytes]:
    def insert(data: bytes) -> bytes:
        parts = frames(data)
        return b"".join(parts[: len(parts) // 2]) + junk + b"".join(parts[len(parts) // 2 :])

    return insert


# Name: how the file is changed; the delays, in samples, with which the audio may come; and
# whether a refusal is as good. A tag's audio begins at once.
_VARIANTS: dict[str, tuple[Callable[[bytes], bytes], tuple[int, ...], str]] = {
    "intact": (lambda data: data, (0,), MUST_ACCEPT),
    "no-tag": (_no_tag, (_DELAY, 0), MUST_ACCEPT),
    "count-0": (partial(_count, lambda n: 0), (0,), MAY_REFUSE),
    "count-half": (partial(_count, lambda n: n // 2), (0, _DELAY), MAY_REFUSE),
    "count-double": (partial(_count, lambda n: 2 * n), (0, _DELAY), MAY_REFUSE),
    "count-one-more": (partial(_count, lambda n: n + 1), (0, _DELAY), MAY_REFUSE),
    "count-one-less": (partial(_count, lambda n: n - 1), (0, _DELAY), MAY_REFUSE),
    "count-all": (partial(_count, lambda n: 0xFFFFFFFF), (0, _DELAY), MAY_REFUSE),
    # 576: a decoder takes its own part of the delay away, and does not know the encoder's.
    **{f"flags-{k}": (partial(_flags, k), (0, 576, _DELAY), MAY_REFUSE) for k in range(16)},
    "vbri": (_vbri, (_DELAY, 0), MUST_ACCEPT),
    **{f"id3-{n}": (_id3(n), (0,), MUST_ACCEPT) for n in (0, 1, 127, 128, 1000, 70_000)},
    "id3-twice": (lambda data: _id3(50)(_id3(60)(data)), (0,), MAY_REFUSE),
    "id3-footer": (_id3(90, footer=True), (0,), MAY_REFUSE),
    "id3-beyond": (_id3(100, 1 << 27), (0, _DELAY), MAY_REFUSE),
    "id3-short": (_id3(300, 100), (0, _DELAY), MAY_REFUSE),
    "id3-alone": (lambda data: _id3(4000)(b""), (), MAY_REFUSE),
    "zeros-first": (lambda data: bytes(3000) + data, (0, _DELAY), MAY_REFUSE),
    "noise-first": (lambda data: bytes(range(1, 250)) * 4 + data, (0, _DELAY), MAY_REFUSE),
    "half-frame-first": (lambda data: data[-30:] + data, (0, _DELAY), MAY_REFUSE),
    "id3v1-last": (lambda data: data + b"TAG".ljust(128, b"x"), (0,), MUST_ACCEPT),
    "zeros-last": (lambda data: data + bytes(5000), (0,), MAY_REFUSE),
    "lyrics-last": (lambda d: d + b"LYRICSBEGIN" + b"a" * 900 + b"LYRICS200", (0,), MAY_REFUSE),
    "id3-middle": (_middle(b"ID3\4\0\0\0\0\1\0" + bytes(128)), (0, _DELAY), MAY_REFUSE),
    "zeros-middle": (_middle(bytes(700)), (0, _DELAY), MAY_REFUSE),
    "tag-alone": (lambda data: frames(data)[0], (), MAY_REFUSE),
    "free-format": (_free, (_DELAY, 0), MAY_REFUSE),
}
_PARAMETERS = [
    (rate, channels) for rates in _RATES.values() for rate in rates for channels in (1, 2)
]


def cases(kit: Kit) -> Iterator[Case]:
    """Every variant, at every sampling rate that mp3 has, mono and stereo, CBR and VBR."""
    for number, (rate, channels) in enumerate(_PARAMETERS):
        for order, (name, (change, delays, must)) in enumerate(_VARIANTS.items()):
            if kit.quick and (number + order) % 12:
                continue
            if name == "free-format" and rate % 11025 == 0:
                continue  # whose frames are not all of one size
            variable = (number + order) % 3 == 0 and name != "free-format"
            mode = "VARIABLE" if variable else "CONSTANT"
            case = partial(_variant, name, change, delays, must, rate, channels, mode, kit.seed)
            yield Case(f"{name}-{rate}x{channels}-{mode.lower()}", case)


def _variant(
    name: str,
    change: Callable[[bytes], bytes],
    delays: tuple[int, ...],
    must: str,
    rate: int,
    channels: int,
    mode: str,
    seed: int,
    folder: Path,
) -> Result:
    signal = sweep(1.1, rate, channels, seed)
    path = write(folder / "clip.mp3", signal, rate, bitrate_mode=mode, compression_level=0.5)
    path.write_bytes(change(path.read_bytes()))
    expected = begins_after(delays, mono(signal), rate, 0.8 if "middle" in name else 0.4)
    return judge(path, expected if delays else None, must)


def begins_after(
    delays: tuple[int, ...], truth: Array, rate: int, accuracy: float = 0.4
) -> Expected:
    """Whether samples are the truth after one of these delays, and little more."""

    def why(found: Array, at: int) -> str:
        if at != rate:
            return f"rate {at} instead of {rate} Hz"
        if len(found) > len(truth) + 6000:
            return f"{len(found)} samples instead of {len(truth)}"
        # The ends are where a codec starts and stops.
        best, off = find(found[300:], truth[300:-300], 4000)
        if best < 0:
            return f"{len(found)} samples instead of {len(truth)}"
        if off > accuracy:
            return f"relative error {off:.3g} at the best delay, {best}"
        near = min(abs(best - delay) for delay in delays)
        return "" if near <= 1 else f"{best} samples late, expected {delays}"

    return why
