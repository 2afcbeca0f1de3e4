"""Strict reading of CSV label files; errors contain the line and the column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..base import FeatregError

Row = tuple[int, list[str]]


def damaged(path: Path, line: int, column: int | str, expected: str, found: str) -> FeatregError:
    """Error about one cell; `column` is the column's name, or its number counted from 1."""
    return FeatregError(f"{path}, line {line}, column {column}: expected {expected}, found {found}")


def read_rows(path: Path, delimiter: str, width: int | None = None) -> Iterator[Row]:
    """Line number and cells of every row; empty lines are skipped.

    Parameters
    ----------
    path
        UTF-8 text file, with or without a byte order mark, with any line endings.
    delimiter
        Character between the cells.
    width
        Number of cells in every row; that of the first row if None.

    Raises
    ------
    FeatregError
        If the file cannot be read, is not UTF-8, contains an unclosed quote, or a row has
        another number of cells.
    """
    yield from parse_rows(path, _text(path), delimiter, width)


def parse_rows(path: Path, text: str, delimiter: str, width: int | None = None) -> Iterator[Row]:
    """As `read_rows`, for the decoded `text` of the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                width = width or len(cells)
                if len(cells) != width:
                    at = min(len(cells), width) + 1
                    raise damaged(path, line, at, f"{width} columns", f"{len(cells)}")
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        column = _first_open_cell(text, line, delimiter)
        raise FeatregError(f"{path}, line {line}, column {column}: {error}") from None


def read_table(
    path: Path, delimiter: str, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column of every line below the header.

    Raises
    ------
    FeatregError
        If one of `columns` is missing, or the file is damaged; see `read_rows`.
    """
    rows = read_rows(path, delimiter)
    line, header = next(rows, (1, []))
    for column in columns:
        if column not in header:
            raise damaged(path, line, column, "this column", ",".join(header) or "an empty file")
    for line, cells in rows:
        yield line, dict(zip(header, cells, strict=True))


def _first_open_cell(text: str, line: int, delimiter: str) -> int:
    """Column, from 1, of the first cell on a line whose quotes do not match."""
    row = "".join(text.splitlines(keepends=True)[line - 1 :])
    cell = re.compile(rf'(?:"(?:[^"]|"")*"|(?!")[^{delimiter}\r\n]*)({delimiter}|\r|\n|$)')
    column, position = 1, 0
    while (match := cell.match(row, position)) and match[1] == delimiter:
        column, position = column + 1, match.end()
    return column


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FeatregError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - before.rfind(b"\n")
        line = before.count(b"\n") + 1
        raise FeatregError(
            f"{path}, line {line}, character {column}: expected UTF-8 text, "
            f"found the byte {raw[error.start]:#04x}"
        ) from None
