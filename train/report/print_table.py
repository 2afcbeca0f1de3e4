"""Tables on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "–"
"""Table cell of a missing value."""


def print_table(found: pd.DataFrame) -> None:
    """Print a table, without a limit on its width if the output is not a terminal.

    Cells are printed verbatim: file names may contain [brackets] and :colons:.
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
