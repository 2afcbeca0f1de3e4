"""Download of one file: resumed, retried, verified, and renamed once complete."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import requests
import urllib3

from ..base import FeatregError
from ..console import progress, say
from ..locks import locked
from ..shards.disk_space import free_bytes

ATTEMPTS = 4
BACKOFF_S = 1.0  # doubled after each attempt without progress
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two packets of the body
CHUNK = 1 << 18
# HTTP status codes that are retried; every other error is final.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Checksum:
    """A published hash of a file.

    Attributes
    ----------
    algorithm
        ``md5``, ``sha256``, or ``git-blob-sha1``, git's hash of a file: the SHA-1 of
        ``blob SIZE``, a zero byte and the content.
    value
        Hexadecimal digits, or the leading ones if no more were published.
    """

    algorithm: Literal["md5", "sha256", "git-blob-sha1"]
    value: str

    @classmethod
    def parse(cls, text: str) -> Checksum | None:
        """The checksum written as ``ALGORITHM:VALUE``; None if `text` is empty."""
        algorithm, _, value = text.partition(":")
        return cls(cast(Any, algorithm), value) if text else None

    def of(self, path: Path) -> str:
        """Hash of the file `path` by the same algorithm, with all its digits."""
        if self.algorithm == "git-blob-sha1":
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        else:
            digest = hashlib.new(self.algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def matches(self, path: Path) -> bool:
        """Whether the file `path` has this hash."""
        return self.of(path).startswith(self.value.lower())

    def __str__(self) -> str:
        return f"{self.algorithm} {self.value}"


def fetch(
    url: str,
    destination: Path,
    *,
    checksum: Checksum | None,
    size: int | None = None,
) -> Path:
    """Download `url` to `destination`, unless the file is already there and intact.

    A partial download is kept as ``NAME.part``, and a later call resumes it, even if this process
    was killed. Processes that download the same file wait for one another.

    Parameters
    ----------
    url
        HTTP or HTTPS address.
    destination
        File to write; its folder is created. It appears only once the content is complete and
        verified.
    checksum
        Published hash; None if none was published.
    size
        Published size in bytes; None if unknown.

    Returns
    -------
    `destination`.

    Raises
    ------
    FeatregError
        If the server cannot be reached or does not return the file, the content differs from the
        published file, or there is not enough disk space. The message states where to put the
        file by hand, and its expected hash.
    """
    if destination.is_file():
        fault = _fault(destination, checksum, size)
        if not fault:
            return destination
        say(f"{destination}: {fault}; downloading it again")
    expected = [str(checksum)] if checksum else []
    expected += [f"{size} bytes"] if size is not None else []
    remedy = f"or put the file there by hand: {destination}"
    if expected:
        remedy += f" (expected: {', '.join(expected)})"
    try:
        with locked(destination.with_name(f".{destination.name}.lock"), f"fix this, {remedy}"):
            # Another process may have downloaded the file while this one waited.
            if not destination.is_file() or _fault(destination, checksum, size):
                _fetch_verified(url, destination, checksum, size)
    except (_FetchError, requests.RequestException) as error:
        raise FeatregError(f"cannot download {url}: {error}; try again, {remedy}") from error
    except OSError as error:
        raise FeatregError(f"cannot write {destination}: {error}") from error
    return destination


class _FetchError(Exception):
    """The download failed for good."""


class _InterruptedError(Exception):
    """The transfer was interrupted; another attempt may succeed."""


_RETRIED = (
    _InterruptedError,
    requests.ConnectionError,
    requests.Timeout,
    urllib3.exceptions.HTTPError,  # from the raw body
)


def _fault(path: Path, checksum: Checksum | None, size: int | None) -> str:
    """Difference between the file and its expected size or hash; empty if there is none."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"expected {size} bytes, found {found}"
    if checksum is not None and not checksum.matches(path):
        return f"expected {checksum}, found {checksum.of(path)} in {found} bytes"
    return ""


def _fetch_verified(
    url: str, destination: Path, checksum: Checksum | None, size: int | None
) -> None:
    part = destination.with_name(f"{destination.name}.part")
    while True:
        continued = part.exists()
        _transfer(url, part)
        fault = _fault(part, checksum, size)
        if not fault:
            break
        part.unlink()
        if not continued:  # a resumed file may have begun with wrong bytes: restart it once
            raise _FetchError(fault)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(destination)


def _transfer(url: str, part: Path) -> None:
    """Download `part` to its full length, with new attempts after interruptions."""
    say(f"downloading {url}")
    idle, furthest = 0, _length(part)
    while True:
        try:
            return _attempt(url, part)
        except _RETRIED as error:
            # A server that cannot resume restarts each time. Only bytes beyond the furthest
            # position so far count as progress, so that the loop ends.
            idle = 0 if _length(part) > furthest else idle + 1
            furthest = max(furthest, _length(part))
            if idle == ATTEMPTS:
                raise _FetchError(f"{_reason(error)} ({ATTEMPTS} attempts)") from error
            time.sleep(BACKOFF_S * 2 ** max(0, idle - 1))


def _attempt(url: str, part: Path) -> None:
    """Append the missing bytes to `part` over one connection."""
    present = _length(part)
    # Request the stored bytes: a .gz file must not be decompressed in transit.
    headers = {"Accept-Encoding": "identity"}
    if present:
        headers["Range"] = f"bytes={present}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        status = f"{response.status_code} {response.reason}"
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416 and span == f"bytes */{present}":
            return  # an earlier process was killed after the last byte, before the rename
        if response.status_code == 416 or (
            response.status_code == 206 and not span.startswith(f"bytes {present}-")
        ):
            part.unlink()
            raise _InterruptedError(f"the server cannot continue at byte {present} ({status})")
        if response.status_code in TRANSIENT:
            raise _InterruptedError(f"the server answered {status}")
        if response.status_code not in (200, 206):
            raise _FetchError(f"the server answered {status}")
        if response.status_code == 200:
            present = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else present + int(length)
        needed, free = 0 if total is None else total - present, free_bytes(part.parent)
        if needed > free:
            where = f"of free space in {part.parent}"
            raise _FetchError(f"expected {needed} bytes {where}, found {free}")
        with (
            part.open("ab" if present else "wb") as file,
            progress(part.stem, total or 0, in_bytes=True) as advance,
        ):
            advance(present)
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                present += len(chunk)
                advance(len(chunk))
        if total is not None and present < total:
            raise _InterruptedError(f"the connection closed after {present} of {total} bytes")


def _reason(error: Exception) -> str:
    """Message of the innermost error; requests wraps the errors of urllib3."""
    wrapped = error.args[0] if error.args else error
    return str(getattr(wrapped, "reason", error))


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
