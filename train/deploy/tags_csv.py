"""A CSV file of predictions to which files are added, so that a stopped command can be resumed."""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import printable

from .write_tags import csv_line

# Largest difference between a stored probability and that of another device or another version.
_TOLERANCE = 1e-3


@dataclass
class _Stored:
    """Files of which the CSV has lines, and the lines of the last one."""

    names: set[str]
    last: str
    lines: list[list[str]]
    start: int  # byte at which the last file's lines start
    end: int  # byte after the last whole line


class TagsCsv:
    """Adds the predictions of files to a CSV; `tags_csv` opens it.

    The lines of a file are written at once. A line that an interrupted command left unfinished is
    removed.
    """

    def __init__(self, path: Path, file: BinaryIO, columns: Sequence[str]) -> None:
        self._path, self._file = path, file
        self._columns = list(columns)
        self._stored = _read(path, file, self._columns)
        file.truncate(self._stored.end)

    def __contains__(self, file: Path) -> bool:
        return printable(str(file)) in self._stored.names

    def is_last(self, file: Path) -> bool:
        """Whether the file is the last one of the CSV, whose lines may be incomplete."""
        return printable(str(file)) == self._stored.last

    def complete(self, lines: Sequence[str]) -> None:
        """Compare the lines of the last file with `lines`, and add those that are missing.

        Raises
        ------
        UsageError
            If they differ, because the CSV was written with another model or interval, or the
            audio has changed.
        """
        expected, stored = [_fields(line) for line in lines], self._stored
        alike = len(stored.lines) <= len(expected) and all(
            map(_alike, stored.lines, expected[: len(stored.lines)])
        )
        if not alike:
            raise UsageError(
                f"--output {self._path}: its predictions of {stored.last} differ from those of "
                "this model now; it was written with another model or --hop, or the audio has "
                "changed: use another file, or delete it"
            )
        if len(stored.lines) < len(expected):
            self._file.truncate(stored.start)
            self.add(lines)

    def add(self, lines: Sequence[str]) -> None:
        """Add all lines of a file, or none if they cannot be written."""
        end = self._file.seek(0, os.SEEK_END)
        try:
            text = "".join(f"{line}\n" for line in lines)
            left = memoryview(text.encode("utf-8", "backslashreplace"))
            while left:  # without a buffer, which would be written again after an error
                left = left[os.write(self._file.fileno(), left) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise _not_written(self._path, error) from None


@contextmanager
def tags_csv(path: Path, columns: Sequence[str]) -> Iterator[TagsCsv]:
    """Open the CSV at `path` to add predictions, or create it with its header.

    Raises
    ------
    FeatregError
        If another command is writing to the file.
    UsageError
        If it has other columns, or is not a CSV of predictions.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+b")
    except OSError as error:
        raise _not_written(path, error) from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FeatregError(
                f"--output {path}: another command is writing to it; wait for it, or use another "
                "file"
            ) from None
        yield TagsCsv(path, file, columns)


def _not_written(path: Path, error: OSError) -> FeatregError:
    return FeatregError(
        f"--output {path}: cannot be written ({error.strerror}); what it contains is kept: run the "
        "same command again to resume"
    )


def _read(path: Path, file: BinaryIO, columns: Sequence[str]) -> _Stored:
    """Read the CSV up to its last whole line; write its header if it is empty."""
    file.seek(0)
    stored, consumed = _Stored(set(), "", [], 0, 0), 0

    def whole_lines() -> Iterator[str]:
        nonlocal consumed
        for line in file:
            if line.endswith(b"\n"):
                consumed += len(line)
                yield line.decode("utf-8", "replace")

    for number, row in enumerate(csv.reader(whole_lines())):
        if number == 0 and row != list(columns):
            raise UsageError(
                f"--output {path}: its columns are {_short(row)}, expected {_short(columns)}; it "
                "was written with another model, --hop or program: use another file"
            )
        if len(row) != len(columns):
            rest = file.read(1)
            if rest or number == 0:
                raise UsageError(
                    f"--output {path}: line {number + 1} has {len(row)} columns, expected "
                    f"{len(columns)}; correct or delete it, or use another file"
                )
            break  # a name with a line break, cut off
        if number and row[0] != stored.last:
            stored.names.add(row[0])
            stored.last, stored.lines, stored.start = row[0], [], stored.end
        if number:
            stored.lines.append(row)
        stored.end = consumed
    if not stored.end:
        stored.end = _write_header(path, file, f"{csv_line(columns)}\n".encode())
    return stored


def _write_header(path: Path, file: BinaryIO, header: bytes) -> int:
    """Write the header to an empty file, or to one in which only the header was begun."""
    file.seek(0)
    if not header.startswith(file.read(len(header))):
        raise UsageError(f"--output {path}: not a CSV of predictions; use another file")
    file.truncate(0)
    file.write(header)
    file.flush()
    return len(header)


def _fields(line: str) -> list[str]:
    return next(csv.reader([printable(line)]))


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    try:
        a, b = (np.array(each[1:], float) for each in (one, other))
    except ValueError:
        return False
    return len(a) == len(b) and bool(np.abs(a - b).max(initial=0) <= _TOLERANCE)


def _short(columns: Sequence[str], limit: int = 100) -> str:
    text = ",".join(columns)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
