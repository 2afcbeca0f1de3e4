"""Kind 6: headers that are wrong, incomplete or not of audio files, and other paths."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from .cases import Case, Kit, Result
from .containers import Coding, codings, is_signal, plain
from .judge import MAY_REFUSE, MUST_ACCEPT, Expected, judge
from .mp3_headers import begins_after
from .signals import Array, differs, differs_locally, mono, sweep, write

_RATE = 16000
_ALL = 0xFFFFFFFF


def wav(samples: bytes, rate: int = _RATE, channels: int = 1, **changed: int) -> bytes:
    """A WAV file of 16 bits; `changed` are its fields ``riff``, ``data``, ``bits``, ``align``."""
    align = changed.get("align", 2 * channels)
    about = struct.pack(
        "<HHIIHH",
        changed.get("tag", 1),
        channels,
        rate,
        min(_ALL, rate * align),
        align & 0xFFFF,
        changed.get("bits", 16),
    )
    head = b"RIFF" + struct.pack("<I", changed.get("riff", 36 + len(samples))) + b"WAVEfmt "
    size = struct.pack("<I", changed.get("data", len(samples)))
    return head + struct.pack("<I", 16) + about + b"data" + size + samples


def rf64(samples: bytes, sizes: tuple[int, int, int]) -> bytes:
    """An RF64 file with these sizes of RIFF, data, and number of samples."""
    head = b"RF64" + struct.pack("<I", _ALL) + b"WAVEds64" + struct.pack("<I", 28)
    head += struct.pack("<QQQI", *sizes, 0)
    about = struct.pack("<HHIIHH", 1, 1, _RATE, 2 * _RATE, 2, 16)
    return head + b"fmt " + struct.pack("<I", 16) + about + b"data" + b"\xff" * 4 + samples


def au(samples: bytes, size: int, rate: int = _RATE, channels: int = 1) -> bytes:
    """An AU file of 16 bits; `samples` are big-endian."""
    return b".snd" + struct.pack(">5I", 24, size, 3, rate, channels) + samples


def cases(kit: Kit) -> Iterator[Case]:
    """Sizes, rates, channels; other files by these names; folders, pipes and links."""
    signal = sweep(1.0, _RATE, 1, kit.seed)
    yield from _sizes(signal)
    yield from _absurd(signal)
    for name, make in _no_files().items():
        yield Case(f"is-{name}", partial(_no_file, make))
    for name in _NAMES:
        yield Case(f"name-{name!r}"[:40], partial(_named, name, signal))
    for coding in codings(kit.folder):
        if not (coding.endian or (kit.quick and coding.subtype != "PCM_16")):
            yield Case(f"empty-{coding.name}", partial(_empty, coding))
        for number in range(kit.count(5, 1 if coding.subtype == "PCM_16" else 0)):
            yield Case(f"fuzz-{coding.name}-{number}", partial(_fuzz, kit, coding, number))
    for magic in _MAGIC:
        for number in range(kit.count(6, 1)):
            name = f"magic-{magic.strip().decode('latin1')!r}-{number}"
            yield Case(name.replace("\\", "/"), partial(_garbage, kit, magic, number))
    for name, content in _OTHERS.items():
        yield Case(f"content-{name}", partial(_bytes, name, content, None, MAY_REFUSE))


def _equals(signal: Array) -> Expected:
    return lambda found, rate: (
        f"rate {rate}" if rate != _RATE else differs(found, mono(signal), 2e-4)
    )


def _bytes(name: str, content: bytes, expected: Expected | None, must: str, folder: Path) -> Result:
    path = folder / name
    path.write_bytes(content)
    return judge(path, expected, must)


def _sizes(signal: Array) -> Iterator[Case]:
    """Unknown or wrong lengths."""
    little = np.rint(signal * 32767).astype("<i2").tobytes()
    big = np.frombuffer(little, "<i2").astype(">i2").tobytes()
    n, right = len(little), _equals(signal)

    unknown = {"0": 0, "all": _ALL, "max": 0x7FFFFFFF, "right": n}
    for riff in {"8": 8, "36": 36, "all": _ALL, "0": 0, "right": 36 + n}.items():
        for data in unknown.items():
            content = wav(little, riff=riff[1], data=data[1])
            case = partial(_bytes, "clip.wav", content, right, MUST_ACCEPT)
            yield Case(f"wav-riff-{riff[0]}-data-{data[0]}", case)
        for name, size in (("half", n // 2), ("double", 2 * n)):
            content = wav(little, riff=riff[1], data=size)
            case = partial(_bytes, "clip.wav", content, right, MAY_REFUSE)
            yield Case(f"wav-riff-{riff[0]}-data-{name}", case)
    for name, sizes in {
        "zero": (0, 0, 0), "right": (72 + n, n, n // 2), "no-count": (72 + n, n, 0),
        "data-zero": (72 + n, 0, 0), "huge": (2**62, 2**62, 2**61),
    }.items():  # fmt: skip
        must = MUST_ACCEPT if name in ("zero", "right", "no-count") else MAY_REFUSE
        yield Case(f"rf64-{name}", partial(_bytes, "clip.wav", rf64(little, sizes), right, must))
    for name, size in {"all": _ALL, "right": n, "0": 0, "double": 2 * n}.items():
        must = MUST_ACCEPT if name in ("all", "right") else MAY_REFUSE
        yield Case(f"au-{name}", partial(_bytes, "clip.au", au(big, size), right, must))
    for name in ("unknown", "huge", "half"):
        yield Case(f"flac-total-{name}", partial(_flac, name, signal))
    for name, size in {"0": 0, "all": _ALL, "right": n + 8, "double": 2 * n}.items():
        for frames in (0, len(signal), _ALL):
            case = partial(_aiff, size, frames, signal)
            yield Case(f"aiff-size-{name}-frames-{frames}", case)


def _flac(name: str, signal: Array, folder: Path) -> Result:
    """The number of samples in STREAMINFO: 36 bits from the lower half of byte 21 on."""
    path = write(folder / "clip.flac", signal, _RATE)
    data = bytearray(path.read_bytes())
    total = {"unknown": 0, "huge": 2**36 - 1, "half": len(signal) // 2}[name]
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = struct.pack(">I", total & _ALL)
    path.write_bytes(data)
    return judge(path, _equals(signal), MUST_ACCEPT if name == "unknown" else MAY_REFUSE)


def _aiff(size: int, frames: int, signal: Array, folder: Path) -> Result:
    path = write(folder / "clip.aiff", signal, _RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    common, sound = data.index(b"COMM"), data.index(b"SSND")
    intact = size == 2 * len(signal) + 8 and frames == len(signal)
    data[common + 10 : common + 14] = struct.pack(">I", frames)
    data[sound + 4 : sound + 8] = struct.pack(">I", size)
    path.write_bytes(data)
    return judge(path, _equals(signal), MUST_ACCEPT if intact else MAY_REFUSE)


def _absurd(signal: Array) -> Iterator[Case]:
    """Implausible rates and numbers of channels."""
    little = np.rint(signal * 32767).astype("<i2").tobytes()
    big = np.frombuffer(little, "<i2").astype(">i2").tobytes()
    for rate in (0, 1, 2, 10, 50, 2**24, 2**31 - 1, 2**31, _ALL):
        for name, content in (("wav", wav(little, rate)), ("au", au(big, len(big), rate))):
            case = partial(_bytes, f"clip.{name}", content, None, MAY_REFUSE)
            yield Case(f"{name}-rate-{rate}", case)
    for rate in (400, 3999, 192_000, 384_000, 999_999):  # odd, and as they are if taken at all

        def as_it_is(found: Array, at: int, rate: int = rate) -> str:
            return f"rate {at}" if at != rate else differs(found, mono(signal), 2e-4)

        case = partial(_bytes, "clip.wav", wav(little, rate), as_it_is, MAY_REFUSE)
        yield Case(f"wav-rate-{rate}", case)
    for channels in (0, 1025, 20_000, 65_535):
        content = wav(little, channels=channels)
        yield Case(f"wav-channels-{channels}", partial(_bytes, "c.wav", content, None, MAY_REFUSE))
        content = au(big, len(big), channels=channels or 2**31)
        yield Case(f"au-channels-{channels}", partial(_bytes, "c.au", content, None, MAY_REFUSE))
    for bits in (0, 1, 3, 17, 65, 255, 65_535):
        content = wav(little, bits=bits)
        yield Case(f"wav-bits-{bits}", partial(_bytes, "c.wav", content, None, MAY_REFUSE))


def _empty(coding: Coding, folder: Path) -> Result:
    """Files without samples."""
    path = folder / f"clip.{coding.container.lower()}"
    try:
        coding.write(path, np.zeros((0, coding.channels)))
    except (soundfile.LibsndfileError, RuntimeError):
        path.write_bytes(b"")
    return judge(path, None)


def _fuzz(kit: Kit, coding: Coding, number: int, folder: Path) -> Result:
    """Changed bytes of the header: the file is rejected, or decoded as the header specifies.

    Few headers have a checksum. If a header declares other audio for the same bytes (more
    channels, another width or order), every program must believe it: the samples are then those
    that soundfile finds.
    """
    rng = kit.random("fuzz", coding.name, number)
    channels, rate = coding.channels, coding.rate
    signal = sweep(0.5, rate, channels, kit.seed)
    path = folder / f"clip.{coding.container.lower()}"
    coding.write(path, signal)
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(min(len(data), 80))] = rng.randrange(256)
    path.write_bytes(data)
    if coding.container == "MP3":
        # Where the tag's header or name is damaged, it is a silent frame of 576 samples.
        return judge(path, begins_after((0, 576, 1105, 1681), mono(signal), rate))
    intact = is_signal(coding, signal, rate)

    def as_it_is(found: Array, at: int) -> str:
        n, truth = min(len(found), len(signal)), mono(signal)
        if not intact(found, at):
            return ""
        if not differs(found[:n], truth[:n], coding.accuracy):  # of another rate, or with more
            return "" if n == len(truth) else f"{len(found)} samples instead of {len(truth)}"
        try:
            read, _ = plain(path)
        except soundfile.LibsndfileError as error:
            return f"accepted, but soundfile says {error}"
        n = min(len(found), len(read))
        if abs(len(found) - len(read)) > 100:  # bytes of the header taken for samples, or not
            return f"{len(found)} samples instead of {len(read)}"
        ends = differs_locally(found[len(found) - n :], read[len(read) - n :], 5e-3)
        return ends and differs_locally(found[:n], read[:n], 5e-3)

    return judge(path, as_it_is)


_MAGIC = [
    b"RIFF\x24\x10\0\0WAVEfmt ", b"RIFX\0\0\x10\x24WAVEfmt ", b"RF64\xff\xff\xff\xffWAVEds64",
    b"FORM\0\0\x10\0AIFFCOMM", b"FORM\0\0\x10\0AIFCFVER", b"FORM\0\0\x10\x008SVXVHDR",
    b".snd", b"fLaC\0\0\0\x22", b"OggS\0\x02", b"ID3\x04\0\0\0\0\x0f\x0f",
    b"\xff\xfb\x90\x64", b"caff\0\1\0\0", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
    b"MATLAB 5.0 MAT-file, ", b"NIST_1A\n   1024\n", b"2BIT\0\0\0\0", b"PVF1\n", b" paf",
    b"fap ", b"\xf0\x7e\0\1", b"Creative Voice File\x1a\x1a\0\x0a\1", b"ALawSoundFile**",
    b"Extended Instrument: ", b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3", b"#!AMR\n",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"MAC \x96\x0f", b"wvpk", b"MThd\0\0\0\6",
    b"PK\3\4", b"\x1f\x8b\x08",
]  # fmt: skip


def _garbage(kit: Kit, magic: bytes, number: int, folder: Path) -> Result:
    rng = kit.random("garbage", magic, number)
    suffix = rng.choice(["wav", "mp3", "flac", "ogg", "aiff", "dat"])
    content = magic + rng.randbytes(rng.choice([0, 1, 7, 60, 600, 20_000]))
    return _bytes(f"clip.{suffix}", content, None, MAY_REFUSE, folder)


_OTHERS = {
    "page.mp3": b"<!DOCTYPE html><html><head><title>404</title></head></html>" * 20,
    "error.wav": b'{"error": {"code": 403, "message": "quota exceeded"}}',
    "empty.flac": b"",
    "spaces.wav": b" " * 4096,
    "zeros.mp3": bytes(100_000),
    "ones.mp3": b"\xff" * 100_000,
    "text.ogg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "paper.wav": b"%PDF-1.4 " + bytes(range(256)) * 30,
    "script.aiff": b"#!/bin/sh\necho no audio\n" * 50,
    "one-byte.wav": b"R",
    "song.m4a": b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(2000),
    "sync.mp3": b"\xff\xfb\x90\x64" * 5000,
}

_NAMES = [
    "a b.wav", "-n.wav", "a\nb.wav", "a\rb.wav", "a\tb.wav", 'a"b.wav', "a'b,c;d.wav", " lead.wav",
    "trail .wav", "[x] {y} :smile:.wav", "ü-é-日本.wav", "u\u0308.wav", "\udcff\udcfe.wav",
    "n" * 240 + ".wav", "no-suffix", ".hidden.wav", "%s%d%n.wav", "$HOME.wav", "a.wav.mp3",
]  # fmt: skip


def _named(name: str, signal: Array, folder: Path) -> Result:
    plain_name = write(folder / "clip.wav", signal, _RATE, subtype="PCM_16")
    path = folder / name
    plain_name.rename(path)
    return judge(path, _equals(signal), MUST_ACCEPT)


def _no_files() -> dict[str, Callable[[Path], object]]:
    return {
        "missing": lambda path: None,
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
        "dangling-link": lambda path: path.symlink_to("nowhere"),
        "link-to-itself": lambda path: path.symlink_to(path.name),
        "zeros-without-end": lambda path: path.symlink_to("/dev/zero"),
        "null": lambda path: path.symlink_to("/dev/null"),
        "below-a-file": lambda path: path.parent.joinpath("file").write_bytes(b""),
        "unreadable": _unreadable,
        "sparse": lambda path: path.touch() or os.truncate(path, 1 << 33),
    }


def _no_file(make: Callable[[Path], object], folder: Path) -> Result:
    path = folder / "clip.wav"
    make(path)
    if (folder / "file").exists():
        path = folder / "file" / "clip.wav"
    if "unreadable" not in make.__name__:
        return judge(path, None)
    path.chmod(0)
    folder.chmod(0o755)
    for parent in folder.parents[:2]:
        parent.chmod(0o755)
    root = os.geteuid() == 0  # whom no permission stops
    try:
        if root:
            os.seteuid(65534)
        return judge(path, None)
    finally:
        if root:
            os.seteuid(0)


def _unreadable(path: Path) -> None:
    path.write_bytes(wav(bytes(32_000)))
