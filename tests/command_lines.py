"""Command lines as people write them, held to the commands that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import click

from featreg.extract.cli import prep
from featreg.train.cli import train

_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


def commands() -> dict[str, click.Command]:
    """Every command that a line of ours may start, by name."""
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    dask = click.Group("dask", commands={"scheduler": scheduler, "worker": worker})
    return {"prep": prep, "train": train, "dask": dask}


def logical_lines(text: str) -> Iterator[str]:
    """Lines of a shell script: continued ones joined, empty ones and comments left out."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def find(line: str) -> list[str] | None:
    """The words of our command in a line, its name first; None if the line has none.

    It may stand behind assignments (``FEATREG_WORK=... prep ...``), and behind whatever starts
    a container (``docker run IMAGE prep ...``).
    """
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    if words and words[0] in ("docker", "apptainer"):
        starts = [k for k, word in enumerate(words) if word in ("prep", "train")]
        words = words[starts[0] :] if starts else []
    return words if words and words[0] in ("prep", "train", "dask") else None


def parse(words: Sequence[str]) -> dict[str, Any]:
    """The parameters that a command takes from its words, without doing it.

    Files need not exist.

    Raises
    ------
    click.UsageError
        If the command would refuse its words.
    """
    name, *rest = words
    with patch.object(click.Path, "convert", lambda self, value, param, context: value):
        return _parse(commands()[name], name, rest, None)


def _parse(
    command: click.Command, name: str, words: list[str], parent: click.Context | None
) -> dict[str, Any]:
    try:
        context = command.make_context(name, words, parent=parent)
    except click.exceptions.Exit:  # --help and --version
        return {}
    with context:
        if not isinstance(command, click.Group):
            return context.params
        # click below 9 keeps the first word apart.
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        found, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        return _parse(inner, found or "", rest, context)
