"""Labels and audio of the published datasets: fetched, verified, unpacked without a copy.

An archive that was cut into parts is read across them as one file, so it is never
joined on disk, and its members are written straight to their places. Parts are removed
once all members are there. Killed at any point, the same call goes on from where it was.
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
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..base import FeatregError
from ..console import progress, say, warn
from ..shards.disk_space import free_bytes
from .fetch import Checksum, fetch
from .info import Archive, Remote
from .registry import module

_BUFFER = 1 << 20


def download(name: str, root: Path) -> None:
    """Bring what can be downloaded of a dataset to `root`, and say what is missing then.

    Raises
    ------
    FeatregError
        If there is not enough room, an address does not answer with the published file,
        or an archive is damaged.
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
    checksum = None
    if remote.checksum:
        algorithm, _, value = remote.checksum.partition(":")
        checksum = Checksum(cast(Any, algorithm), value)
    return fetch(remote.url, root / remote.name, checksum=checksum, size=remote.size)


def _unpacked(archive: Archive, root: Path) -> bool:
    """Whether as many members are in place as the archive holds."""
    folder = root / archive.folder
    wanted = re.compile(archive.member)
    files = 0
    for parent, _, names in os.walk(folder):
        below = Path(parent).relative_to(folder)
        files += sum(wanted.search((below / name).as_posix()) is not None for name in names)
    return files >= archive.files


def _check_room(root: Path, archives: Sequence[Archive]) -> None:
    """Refuse before the first byte what would fail for want of room after the last."""
    needed = 0
    for archive in archives:
        here = {root / f"{part.name}{end}" for part in archive.parts for end in ("", ".part")}
        here.update((root / archive.folder).rglob("*"))
        there = sum(path.stat().st_size for path in here if path.is_file())
        needed += max(0, archive.download_bytes + archive.unpacked_bytes - there)
    free = free_bytes(root)
    if needed > free:
        raise FeatregError(
            f"{root}: expected {needed / 1e9:.1f} GB of free disk space, for the archive and what "
            f"is in it, found {free / 1e9:.1f} GB; make room, or name another folder with --root"
        )


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive: its place in the folder, its size, and its bytes."""

    place: str
    size: int
    content: IO[bytes]


def _unpack(archive: Archive, parts: Sequence[Path], folder: Path) -> None:
    """Write the archive's members to `folder`, those that are not there yet."""
    found = 0
    try:
        with ExitStack() as stack:
            # Buffered, for a raw read ends where a part ends.
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
            f"cannot unpack {names}: {error}; remove what is damaged and download again"
        ) from error
    except OSError as error:
        raise FeatregError(f"cannot write to {folder}: {error}") from error
    if found < archive.files:
        raise FeatregError(
            f"{parts[0]}: expected {archive.files:,} files in the archive, found {found:,}; "
            "it is not the published one"
        )
    os.sync()  # the archive is about to go: what came out of it must outlive a power cut


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
                # Decrypting takes Python about ten minutes for DCASE's evaluation set, once.
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
    """Files in a row, read as one.

    Parameters
    ----------
    paths
        The pieces in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes before the next one."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset`, counted from the start, from here or from the end."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from one of the files; 0 after the last byte of the last."""
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
