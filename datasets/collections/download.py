"""Download, verification and unpacking of the published datasets.

The parts of a split archive are read as one file and never joined on disk; the members are
written directly to their final places. The parts are removed once all members are unpacked. After
an interruption, the same call resumes the download.
"""

from __future__ import annotations

import bisect
import io
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

from ..base import FeatregError
from ..console import progress, say, warn
from ..shards.disk_space import free_bytes
from .fetch import Checksum, fetch
from .info import Archive, Remote
from .registry import module

_BUFFER = 1 << 20


def download(name: str, root: Path) -> None:
    """Download the public files of a dataset to `root`, and print what is still missing.

    Raises
    ------
    FeatregError
        If there is not enough disk space, a server does not return the published file, or an
        archive is damaged.
    """
    dataset = module(name)
    wanted: Sequence[Remote | Archive] = getattr(dataset, "DOWNLOADS", ())
    if not wanted:
        say(f"{dataset.INFO.title}: {dataset.INFO.needs}")
        return
    archives = [item for item in wanted if isinstance(item, Archive) and not _unpacked(item, root)]
    _check_room(root, archives)
    for item in wanted:
        if isinstance(item, Remote):
            _fetch(item, root)
    for archive in archives:
        _unpack(archive, [_fetch(part, root) for part in archive.parts], root / archive.folder)
        for part in archive.parts:
            (root / part.name).unlink()
    try:
        dataset.read(root)
    except FeatregError as error:
        warn(f"downloaded to {root}, but not complete: {error}")
    else:
        say(f"{dataset.INFO.title}: complete, in {root}")


def _fetch(remote: Remote, root: Path) -> Path:
    checksum = Checksum.parse(remote.checksum)
    return fetch(remote.url, root / remote.name, checksum=checksum, size=remote.size)


def _unpacked(archive: Archive, root: Path) -> bool:
    """Whether the folder contains as many members as the archive."""
    folder = root / archive.folder
    wanted = re.compile(archive.member)
    files = 0
    for parent, _, names in os.walk(folder):
        below = Path(parent).relative_to(folder)
        files += sum(wanted.search((below / name).as_posix()) is not None for name in names)
    return files >= archive.files


def _check_room(root: Path, archives: Sequence[Archive]) -> None:
    """Raise an error before the download starts if the disk space does not suffice."""
    needed = 0
    for archive in archives:
        here = {root / f"{part.name}{end}" for part in archive.parts for end in ("", ".part")}
        here.update((root / archive.folder).rglob("*"))
        there = sum(path.stat().st_size for path in here if path.is_file())
        needed += max(0, archive.download_bytes + archive.unpacked_bytes - there)
    free = free_bytes(root)
    if needed > free:
        raise FeatregError(
            f"{root}: expected {needed / 1e9:.1f} GB of free disk space for the archive and its "
            f"content, found {free / 1e9:.1f} GB; free disk space, or use another folder (--root)"
        )


class _Member(NamedTuple):
    """A file in an archive: its path relative to the folder, its size in bytes, its content."""

    place: str
    size: int
    content: IO[bytes]


def _unpack(archive: Archive, parts: Sequence[Path], folder: Path) -> None:
    """Write the members of the archive to `folder`, except those that are there already."""
    found = 0
    try:
        with ExitStack() as stack:
            # Buffered, because a raw read ends at the end of a part.
            joined = stack.enter_context(io.BufferedReader(Joined(parts), _BUFFER))
            advance = stack.enter_context(progress(f"unpack {parts[0].name}", archive.files))
            read = _zip_members if zipfile.is_zipfile(joined) else _tar_members
            joined.seek(0)
            for member in read(joined, archive):
                found += 1
                _write(member, folder / member.place)
                advance()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError) as error:
        names = " ".join(str(part) for part in parts)
        raise FeatregError(
            f"cannot unpack {names}: {error}; delete the damaged files and run `prep download` "
            "again"
        ) from error
    except OSError as error:
        raise FeatregError(f"cannot write to {folder}: {error}") from error
    if found < archive.files:
        raise FeatregError(
            f"{parts[0]}: expected {archive.files:,} files in the archive, found {found:,}; "
            "this is not the published archive"
        )
    os.sync()  # the parts are deleted next, so the members must survive a power failure


def _write(member: _Member, path: Path) -> None:
    if path.is_file() and path.stat().st_size == member.size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        shutil.copyfileobj(member.content, file)
    temporary.replace(path)


def _zip_members(joined: BinaryIO, archive: Archive) -> Iterator[_Member]:
    with zipfile.ZipFile(joined) as container:
        for entry in container.infolist():
            if match := re.search(archive.member, entry.filename):
                # Decrypting DCASE's evaluation set takes about ten minutes in Python.
                with container.open(entry, pwd=archive.password.encode() or None) as content:
                    yield _Member(match[1], entry.file_size, content)


def _tar_members(joined: BinaryIO, archive: Archive) -> Iterator[_Member]:
    with tarfile.open(fileobj=joined, mode="r|gz") as container:
        for entry in container:
            match = re.search(archive.member, entry.name)
            if match and entry.isfile():
                content = container.extractfile(entry)
                assert content is not None  # a regular file has content
                yield _Member(match[1], entry.size, content)


class Joined(io.RawIOBase):
    """Read-only stream of several files, one after another.

    Parameters
    ----------
    paths
        The files in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Position in the stream, in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` bytes from the start, the current position or the end."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read bytes of one file into `buffer`; return their number, 0 at the end."""
        index = bisect.bisect_right(self._ends, self._position)
        if index == len(self._files):
            return 0
        file = self._files[index]
        file.seek(self._position - (self._ends[index - 1] if index else 0))
        read = file.readinto(buffer)
        self._position += read
        return read

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()
        super().close()
