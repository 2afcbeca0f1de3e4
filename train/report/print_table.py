"""Tables on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "–"
"""Stands where there is no number."""


def print_table(found: pd.DataFrame) -> None:
    """Print a table, as wide as it needs to be where that is no terminal.

    Cells stand as they are: names of files may hold [brackets] and :colons:.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 500
    shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(found.columns):
        shown.add_column(str(name), justify="left" if number == 0 else "right")
    for row in found.itertuples(index=False):
        shown.add_row(*map(str, row))
    console.print(shown)
