"""Tables of clips in the forms that programs write: CSV, TSV and JSON lines, in any encoding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base import FeatregError
from .csv_rows import Row, parse_rows

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", ".txt", *JSON_LINES)

_DELIMITERS = {",": "comma-separated", ";": "semicolon-separated", "\t": "tab-separated"}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Rows of text cells under column names.

    Attributes
    ----------
    header
        Names of the columns, without spaces at their ends; a column without a name is called
        ``column N``, with N counted from 1.
    rows
        Line in the file, from 1, and the cells of each row.
    form
        How the file was read, in words.
    """

    header: list[str]
    rows: list[Row]
    form: str


def read_label_file(path: Path) -> LabelTable:
    """The table in a CSV, TSV or JSON lines file.

    The delimiter of a CSV file is the comma, semicolon or tab that occurs most often in its first
    line. The encoding is UTF-8, UTF-16, or else Windows-1252, which includes the printable
    characters of Latin-1.

    Raises
    ------
    FeatregError
        If the file cannot be read, is not text, contains an unclosed quote or an invalid JSON
        object, or a row has another number of cells than the first one.
    """
    text, encoding = _decode(path)
    if path.suffix.lower() in JSON_LINES:
        return _json_table(path, text, f"JSON lines, {encoding}")
    first = text.strip().splitlines()[0] if text.strip() else ""
    delimiter = max(_DELIMITERS, key=first.count)
    rows = list(parse_rows(path, text, delimiter))
    header = [name.strip() or f"column {k}" for k, name in enumerate(rows[0][1], 1)] if rows else []
    return LabelTable(header, rows[1:], f"{_DELIMITERS[delimiter]}, {encoding}")


def _json_table(path: Path, text: str, form: str) -> LabelTable:
    records = list(_json_records(path, text))
    header = list(dict.fromkeys(name for _, record in records for name in record))
    rows = [(line, [_cell(record.get(name)) for name in header]) for line, record in records]
    return LabelTable(header, rows, form)


def _json_records(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            record = json.loads(words)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "too deeply nested")
            raise FeatregError(
                f"{path}, line {line}: expected a JSON object, found {words[:60]!r} ({reason})"
            ) from None
        if not isinstance(record, dict):
            raise FeatregError(f"{path}, line {line}: expected a JSON object, found {words[:60]!r}")
        yield line, {name.strip(): value for name, value in record.items()}


def _cell(value: Any) -> str:
    """A JSON value as the text of a cell; the items of a list are separated by ``|``."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "|".join(map(_cell, value))
    return value if isinstance(value, str) else json.dumps(value)


def _decode(path: Path) -> tuple[str, str]:
    """Text of a file, and the name of its encoding."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FeatregError(f"{path}: cannot be read ({error.strerror})") from None
    codecs = ["utf-8-sig", "cp1252", "latin-1"]
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        codecs = ["utf-16"]
    elif raw.count(0) > len(raw) // 4:  # every other byte of most UTF-16 text is zero
        codecs = ["utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"]
    for codec in codecs:
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252"}.get(codec, codec.upper())
    line = raw[: raw.find(0) + 1].count(b"\n") + 1
    raise FeatregError(f"{path}, line {line}: expected a text file, found bytes that are not text")
