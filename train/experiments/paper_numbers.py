"""Numbers that Table I of the paper prints, as far as they are known.

They come from ``paper_table1.csv`` beside this file; where it has none, the table has a dash.
"""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import pandas as pd

from featreg.datasets.base import UsageError

_PRINTED = ("dataset", "method", "features", "value")


def read_printed(path: Path | None = None) -> dict[tuple[str, ...], str]:
    """The paper's printed numbers, by dataset, method and features.

    Parameters
    ----------
    path
        A CSV with the columns dataset, method, features and value, for readers who have
        the paper at hand; None for what featreg knows.

    Raises
    ------
    UsageError
        If it is no such file, or a column is missing.
    """
    source = path or files(__package__).joinpath("paper_table1.csv")
    try:
        text = io.StringIO(source.read_text(encoding="utf-8"))
        found = pd.read_csv(text, comment="#", dtype=str, keep_default_na=False)
        if not isinstance(found.index, pd.RangeIndex):  # pandas takes what is left for names
            raise ValueError("rows have more cells than the header")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: no CSV in UTF-8 ({reason})") from None
    if missing := [name for name in _PRINTED if name not in found.columns]:
        raise UsageError(
            f"{path}: no column {', '.join(missing)}; printed numbers need the columns "
            f"{', '.join(_PRINTED)}, a row for each number"
        )
    return {(d, m, f): value for d, m, f, value in found[list(_PRINTED)].to_numpy().tolist()}
