"""A section of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the contents below it, from top to bottom; empty parts are omitted."""

    title: str
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    image: str = ""
    caption: str = ""
    points: Sequence[str] = field(default_factory=tuple)
    folded: str = ""  # summary of a collapsed table; empty for an open one
    left_out: Sequence[str] = ()  # collapsed list of the groups that are not drawn

    @property
    def html(self) -> Markup:
        """Return the table with escaped cells and possible line breaks after +."""
        if self.table is None:
            return Markup("")
        kinds = ["features"] if "features" in self.table.columns[1:2] else None
        html = self.table.to_html(index=False, border=0, classes=kinds)
        return Markup(html.replace("+", "+<wbr>"))
