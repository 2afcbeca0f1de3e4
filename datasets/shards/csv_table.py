"""CSV tables of a working folder, whatever text is in them."""

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
    """Write a table from which `read_csv` gets back every text, whatever is in it.

    A file name may hold carriage returns, which Python's csv quotes only if told to, and bytes
    that are not UTF-8, which are written as they are.
    """
    texts = chain(table.columns, *(table[name] for name in _FREE_TEXT if name in table))
    rare = any("\r" in text for text in texts)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if rare else csv.QUOTE_MINIMAL
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, quoting=quoting, errors="surrogateescape")


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """A table that `write_csv` wrote; an empty cell is NaN, and nothing else is."""
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
