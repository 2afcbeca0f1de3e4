"""Types of options whose value is a list joined by ``+``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from featreg.datasets.console import Finite

_PLUS = re.compile(r"(?<![eE])\+")  # not that of an exponent, as in 1e+3


class Combined(click.Choice[str]):
    """One or several choices joined by ``+``, each at most once."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the choices joined by ``+``; fail with click's usage error if one is invalid."""
        names = [super(Combined, self).convert(name, param, ctx) for name in value.split("+")]
        if len(set(names)) < len(names) or ("none" in names and len(names) > 1):
            self.fail(f"{value}: give each name only once, and none alone", param, ctx)
        return "+".join(names)


class Weights(click.ParamType):  # type: ignore[type-arg]
    """One or several finite numbers of at least 0, joined by ``+``."""

    name = "float"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Sequence[float]:
        """Return the numbers; fail with click's usage error if one is invalid."""
        if isinstance(value, tuple):
            return value
        number = Finite(0)
        return tuple(number.convert(text, param, ctx) for text in _PLUS.split(str(value)))
