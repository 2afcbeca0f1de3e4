"""Known numbers of Table I as printed in the paper, from ``paper_table1.csv``."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import pandas as pd

from featreg.datasets.base import UsageError

_PRINTED = ("dataset", "method", "features", "value")


def read_printed(path: Path | None = None) -> dict[tuple[str, ...], str]:
    """Read the paper's printed numbers.

    Parameters
    ----------
    path
        CSV file with the columns dataset, method, features and value; None for the numbers
        that featreg contains.

    Returns
    -------
    (dataset, method, features) -> number, as printed.

    Raises
    ------
    UsageError
        If the file is not a CSV file in UTF-8, or a column is missing.
    """
    source = path or files(__package__).joinpath("paper_table1.csv")
    try:
        text = io.StringIO(source.read_text(encoding="utf-8"))
        table = pd.read_csv(text, comment="#", dtype=str, keep_default_na=False)
        if not isinstance(table.index, pd.RangeIndex):  # pandas uses additional cells as index
            raise ValueError("rows have more cells than the header")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not a CSV file in UTF-8 ({reason})") from None
    if missing := [name for name in _PRINTED if name not in table.columns]:
        raise UsageError(
            f"{path}: column {', '.join(missing)} not found; expected the columns "
            f"{', '.join(_PRINTED)}, with one row per number"
        )
    return {(d, m, f): value for d, m, f, value in table[list(_PRINTED)].to_numpy().tolist()}
