"""One file from an address: resumed, retried, verified, and complete under its final name."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import requests
import urllib3
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..base import FeatregError
from ..console import console, say
from ..locks import locked

ATTEMPTS = 4
BACKOFF_S = 1.0  # doubled after each attempt that brought nothing new
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two pieces of the body
CHUNK = 1 << 18
# Answers that another attempt may change; every other error is final.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Report = Callable[[int, int | None], None]  # bytes present, bytes in all where known


@dataclass(frozen=True, slots=True)
class Checksum:
    """A published hash of a file.

    Attributes
    ----------
    algorithm
        ``md5``, ``sha256``, or ``git-blob-sha1``: what git calls a file of this content,
        the SHA-1 of ``blob SIZE`` and a zero byte followed by the file.
    value
        Hexadecimal digits; leading digits suffice where no more were published.
    """

    algorithm: Literal["md5", "sha256", "git-blob-sha1"]
    value: str

    def of(self, path: Path) -> str:
        """The same kind of hash of the file `path`, all its digits."""
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
    """Download `url` to `destination`, unless the file is already there and right.

    What has arrived stays beside it as ``NAME.part``: a later call continues from there,
    also after this process was killed. Processes that fetch the same file wait for one
    another.

    Parameters
    ----------
    url
        An http or https address.
    destination
        The file to write; its folder is made. The name appears only once the content
        is complete and verified.
    checksum
        The published hash; None where none was published.
    size
        The published size in bytes; None where unknown.

    Returns
    -------
    `destination`.

    Raises
    ------
    FeatregError
        If the address cannot be reached or does not answer with the file, the content
        is not what was published, or there is no room for it. The message says where
        to put the file by hand, and what hash it must have.
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
        with locked(destination.with_name(f".{destination.name}.lock"), f"mend that, {remedy}"):
            # Another process may have fetched it while this one waited.
            if not destination.is_file() or _fault(destination, checksum, size):
                _fetch_verified(url, destination, checksum, size)
    except (_FetchError, requests.RequestException) as error:
        raise FeatregError(f"cannot download {url}: {error}; try again, {remedy}") from error
    except OSError as error:
        raise FeatregError(f"cannot write {destination}: {error}") from error
    return destination


class _FetchError(Exception):
    """Why the file could not be had."""


class _InterruptedError(Exception):
    """Why the transfer stopped; another attempt may go on."""


_RETRIED = (
    _InterruptedError,
    requests.ConnectionError,
    requests.Timeout,
    urllib3.exceptions.HTTPError,  # from the raw body
)


def _fault(path: Path, checksum: Checksum | None, size: int | None) -> str:
    """What is wrong with the file; empty if nothing is."""
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
        _transfer(url, part, destination.name)
        fault = _fault(part, checksum, size)
        if not fault:
            break
        part.unlink()
        if not continued:  # else the earlier piece may be to blame: once more from the start
            raise _FetchError(fault)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(destination)


def _transfer(url: str, part: Path, name: str) -> None:
    """Bring `part` to its full length, over as many connections as it takes."""
    with _display(name, url) as report:
        idle, furthest = 0, _length(part)
        while True:
            try:
                return _attempt(url, part, report)
            except _RETRIED as error:
                # A server that cannot resume starts over each time: only ground never
                # reached before counts as progress, or this would never end.
                idle = 0 if _length(part) > furthest else idle + 1
                furthest = max(furthest, _length(part))
                if idle == ATTEMPTS:
                    raise _FetchError(f"{_reason(error)} ({ATTEMPTS} attempts)") from error
                time.sleep(BACKOFF_S * 2 ** max(0, idle - 1))


@contextmanager
def _display(name: str, url: str) -> Iterator[Report]:
    """A bar in bytes; off the terminal, a line every tenth of the way."""
    say(f"downloading {url}")
    if not console.is_terminal or not logging.getLogger("featreg").isEnabledFor(logging.INFO):
        tenths = 0

        def plain(present: int, total: int | None) -> None:
            nonlocal tenths
            if total and present * 10 // total > tenths:
                tenths = present * 10 // total
                say(f"{name}: {present / 1e6:.1f} of {total / 1e6:.1f} MB")

        yield plain
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)
        yield lambda present, total: bar.update(task, completed=present, total=total)


def _attempt(url: str, part: Path, report: Report) -> None:
    """One connection: add to `part` what it lacks."""
    present = _length(part)
    # The bytes as they lie on the server: a .gz must not be unpacked on the way.
    headers = {"Accept-Encoding": "identity"}
    if present:
        headers["Range"] = f"bytes={present}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        status = f"{response.status_code} {response.reason}"
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416 and span == f"bytes */{present}":
            return  # killed after the last byte, before the rename
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
        _check_room(part, present, total)
        with part.open("ab" if present else "wb") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                present += len(chunk)
                report(present, total)
        if total is not None and present < total:
            raise _InterruptedError(f"the connection closed after {present} of {total} bytes")


def _reason(error: Exception) -> str:
    """The innermost sentence of an error that requests wrapped around urllib3's."""
    wrapped = error.args[0] if error.args else error
    return str(getattr(wrapped, "reason", error))


def _check_room(part: Path, present: int, total: int | None) -> None:
    needed = 0 if total is None else total - present
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise _FetchError(f"{part.parent} has {free} bytes free, {needed} are needed")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
