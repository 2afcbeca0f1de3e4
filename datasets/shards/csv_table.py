"""CSV tables of a working folder, with arbitrary text in the cells."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from .atomic_file import atomic_path

# Columns whose text is not featreg's own.
_FREE_TEXT = ("clip_id", "path", "reason")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table such that `read_csv` returns every text unchanged.

    File names may contain carriage returns, which Python's csv module does not quote by default,
    and bytes that are not UTF-8, which are written unchanged.
    """
    texts = chain(table.columns, *(table[name] for name in _FREE_TEXT if name in table))
    rare = any("\r" in text for text in texts)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if rare else csv.QUOTE_MINIMAL
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, quoting=quoting, errors="surrogateescape")


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table written by `write_csv`; only empty cells become NaN."""
    text = dict.fromkeys(("clip_id", "path", "split", "stage", "reason"), object)
    table: pd.DataFrame = pd.read_csv(
        path,
        dtype=text,
        keep_default_na=False,
        na_values=[""],
        encoding_errors="surrogateescape",
        low_memory=False,
        **options,
    )
    return table
