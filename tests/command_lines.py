"""Command lines as people write them, held to the commands that there are."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from featreg.extract.cli.prep import prep
from featreg.train.cli.train import train

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

_ASSIGNMENT = re.compile(r"([A-Z_]+)=.*")


def commands() -> dict[str, click.Command]:
    """Every command that a line of ours may start, by name."""
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    dask = click.Group("dask", commands={"scheduler": scheduler, "worker": worker})
    return {"prep": prep, "train": train, "dask": dask}


def benchmark(script: str) -> click.Command:
    """The command of a script in benchmarks/, without running it.

    Raises
    ------
    click.UsageError
        If there is no such script.
    """
    path = BENCHMARKS / script
    if not path.is_file():
        there = ", ".join(sorted(each.name for each in BENCHMARKS.glob("*.py")))
        raise click.UsageError(f"no benchmarks/{script}; there are {there}")
    if str(BENCHMARKS) not in sys.path:  # where a script finds its neighbours
        sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command: click.Command = module.main
    return command


def check_make(line: str, makefile: str) -> None:
    """Hold a line that starts with ``make`` to the targets and variables of a Makefile.

    Raises
    ------
    click.UsageError
        If it names no target, one that is not there, or sets a variable that nothing reads.
    """
    targets, words = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE), shlex.split(line, True)
    named = [word for word in words[1:] if not _ASSIGNMENT.fullmatch(word)]
    if not named or (absent := [word for word in named if word not in targets]):
        found = ", ".join(absent) if named else "none"
        raise click.UsageError(f"targets are {', '.join(targets)}, found {found}")
    for match in filter(None, map(_ASSIGNMENT.fullmatch, words)):
        if f"$({match[1]})" not in makefile:
            raise click.UsageError(f"the Makefile reads no variable {match[1]}")


def logical_lines(text: str) -> Iterator[str]:
    """Lines of a shell script: continued ones joined, empty ones and comments left out."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def find(line: str) -> list[str] | None:
    """The words of our command in a line, its name first; None if the line has none.

    It may stand behind assignments (``FEATREG_WORK=... prep ...``), and behind whatever starts
    a container (``docker run IMAGE prep ...``, ``$FEATREG_RUN prep ...``). The name of a benchmark
    is ``benchmarks/X.py``.
    """
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    if words and words[0] in ("docker", "apptainer", "$FEATREG_RUN"):
        starts = [k for k, word in enumerate(words) if word in ("prep", "train")]
        words = words[starts[0] :] if starts else []
    if words[:1] == ["python"] and "".join(words[1:2]).startswith(f"{BENCHMARKS.name}/"):
        return words[1:]
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
        if name.startswith(f"{BENCHMARKS.name}/"):
            return _parse(benchmark(Path(name).name), name, rest, None)
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
