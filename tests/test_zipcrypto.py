"""Encrypted zip files, against Python's own reader and a cipher written out in full."""

from __future__ import annotations

import io
import random
import zipfile
import zlib

import pytest

from featreg.datasets.collections.zipcrypto import read_encrypted

PASSWORD = b"a password \xff"


def encrypt(plain: bytes, password: bytes) -> bytes:
    """APPNOTE 6.1, a byte at a time."""
    a, b, c = 0x12345678, 0x23456789, 0x34567890

    def stir(byte: int) -> None:
        nonlocal a, b, c
        # crc32 complements its state at both ends.
        a = zlib.crc32(bytes([byte]), a ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
        b = ((b + (a & 0xFF)) * 134775813 + 1) % 2**32
        c = zlib.crc32(bytes([b >> 24]), c ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    for byte in password:
        stir(byte)
    cipher = bytearray()
    for byte in plain:
        word = (c | 2) & 0xFFFF
        cipher.append(byte ^ (word * (word ^ 1) >> 8 & 0xFF))
        stir(byte)
    return bytes(cipher)


def packed(content: bytes, method: int, sizes_follow: bool = False) -> io.BytesIO:
    """A zip file with one encrypted member, ``a.wav``."""
    deflate = zlib.compressobj(wbits=-15)
    data = content if method == 0 else deflate.compress(content) + deflate.flush()
    entry = zipfile.ZipInfo("a.wav", (2017, 5, 4, 21, 34, 56))
    known = (21 << 11 | 34 << 5 | 28) >> 8 if sizes_follow else zlib.crc32(content) >> 24
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("before.txt", "plain")
        archive.writestr(entry, encrypt(bytes(11) + bytes([known]) + data, PASSWORD))
        entry.flag_bits |= 0x9 if sizes_follow else 0x1
        entry.CRC, entry.file_size, entry.compress_type = zlib.crc32(content), len(content), method
    return file


def member(file: io.BytesIO) -> zipfile.ZipInfo:
    return zipfile.ZipFile(file).getinfo("a.wav")


@pytest.mark.parametrize("sizes_follow", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [0, 1, 50_000])
def test_members_are_read_as_python_reads_them(size: int, method: int, sizes_follow: bool) -> None:
    content = random.Random(size).randbytes(size)
    file = packed(content, method, sizes_follow)
    assert zipfile.ZipFile(file).read("a.wav", PASSWORD) == content
    assert read_encrypted(file, member(file), PASSWORD) == content


def test_another_password_is_refused() -> None:
    file = packed(b"content", zipfile.ZIP_STORED)
    with pytest.raises(RuntimeError, match=r"Bad password for file 'a\.wav'"):
        read_encrypted(file, member(file), b"a guess")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_is_noticed(method: int) -> None:
    file = packed(random.Random(0).randbytes(1000), method)
    entry = member(file)
    file.getbuffer()[entry.header_offset + 500] ^= 1
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        read_encrypted(file, entry, PASSWORD)


def test_a_file_that_ends_too_early_is_named() -> None:
    file = packed(bytes(1000), zipfile.ZIP_STORED)
    entry = member(file)
    short = io.BytesIO(file.getvalue()[: entry.header_offset + 200])
    with pytest.raises(zipfile.BadZipFile, match=r"'a\.wav' ends too early"):
        read_encrypted(short, entry, PASSWORD)


def test_other_compressions_are_refused() -> None:
    file = packed(b"content", zipfile.ZIP_STORED)
    entry = member(file)
    entry.compress_type = zipfile.ZIP_LZMA
    with pytest.raises(zipfile.BadZipFile, match="neither stored nor deflated"):
        read_encrypted(file, entry, PASSWORD)
