"""Puts what `--help` prints into the page of commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click

from featreg.extract.cli.prep import prep
from featreg.train.cli.train import train

WIDTH = 78


def on_page_markdown(markdown: str, **page: Any) -> str:
    """Replace every line ``HELP OF prep`` by the help of that command and of those below it."""
    groups = {"prep": prep, "train": train}
    return re.sub(
        r"^HELP OF (\w+)$",
        lambda match: "\n".join(_sections(groups[match[1]], match[1], None)),
        markdown,
        flags=re.MULTILINE,
    )


def _sections(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    name = path.rpartition(" ")[2]
    context = click.Context(
        command, parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield f"{'#' * (2 + path.count(' '))} {path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _sections(found, f"{path} {below}", context)
