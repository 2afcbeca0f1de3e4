"""Shared by both commands: one-line errors, exit statuses, messages and progress."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .base import FeatregError, UsageError
from .scarcity import scarcity

# Names of files and clips may contain [brackets] and :colons:, which are printed literally.
console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM was received, for example from a batch scheduler."""


class Commands(click.Group):
    """A group that turns expected failures into one line and an exit status.

    0 success, 1 something failed (and was named), 2 wrong usage, 130 interrupted (SIGINT),
    143 terminated (SIGTERM).
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a `FeatregError` into a line and an exit status."""
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker imports the script that started it, and without a main guard the script
            # calls the command again. The first call reports this.
            sys.exit(1)
        try:
            with _stoppable():
                return super().invoke(ctx)
        except UsageError as error:
            _fail(str(error), 2)
        except FeatregError as error:
            _fail(str(error), 1)
        except KeyboardInterrupt as stop:
            what, status = (
                ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
            )
            _fail(f"{what}; finished work is kept, run the same command again to resume", status)
        except (MemoryError, OSError, ImportError, RuntimeError) as error:
            if reason := scarcity(error):
                _fail(reason, 1)
            raise


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on the first SIGINT or SIGTERM; exit at once on the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, status: int) -> None:
    console.print(Text.assemble(("error:", "red"), f" {printable(message)}"))
    sys.exit(status)


class _Lines(logging.Handler):
    """Print messages above a progress bar, and warnings in color."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console.print(record.getMessage(), style=style)


def printable(text: str) -> str:
    """The text with bytes of file names that are not UTF-8 written as ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(number: int, noun: str) -> str:
    """The number with the noun in the singular or plural."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(message: str) -> None:
    """Print a line, except with ``--quiet``."""
    logging.getLogger("featreg").info(printable(message))


def warn(message: str) -> None:
    """Print a warning, also with ``--quiet``."""
    logging.getLogger("featreg").warning(printable(message))


def _set_verbosity(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    level = logging.WARNING if parameter.name == "quiet" else logging.DEBUG
    logging.getLogger("featreg").setLevel(level)


def group_options(command: Any) -> Any:
    """Add ``--quiet``, ``--verbose`` and ``--version`` to a group."""
    logger = logging.getLogger("featreg")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_Lines())
        logger.propagate = False
    for flag, text in (("quiet", "Print only warnings and errors."), ("verbose", "Print more.")):
        command = click.option(
            f"--{flag}", is_flag=True, expose_value=False, callback=_set_verbosity, help=text
        )(command)
    return click.version_option(package_name="featreg")(command)


def work_option(command: Any) -> Any:
    """Add ``--work DIR`` to a command, passed on as ``work: Path``."""
    return click.option(
        "--work",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("featreg-work"),
        envvar="FEATREG_WORK",
        show_default=True,
        show_envvar=True,
        help="Working folder, in which shards, runs and reports are stored.",
    )(command)


class Finite(click.FloatRange):
    """A finite number within bounds; ``click.FloatRange`` accepts nan and unbounded inf."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; fail with click's usage error if it is invalid or out of bounds."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, found {number}", param, ctx)
        return number


class Advance(Protocol):
    """Advance a progress bar."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Advance by `steps`, and show `note` beside the bar."""


@contextmanager
def progress(what: str, total: int, in_bytes: bool = False) -> Iterator[Advance]:
    """Show a progress bar; if not on a terminal, print a line at every tenth.

    Parameters
    ----------
    what
        Text before the bar.
    total
        Number of steps; 0 if unknown.
    in_bytes
        Whether a step is a byte, so that MB are shown.
    """
    if not logging.getLogger("featreg").isEnabledFor(logging.INFO) or not console.is_terminal:
        done = 0

        def plain(steps: int = 1, note: str = "") -> None:
            nonlocal done
            before, done = done, done + steps
            if total and before * 10 // total != done * 10 // total:
                mega = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
                say(f"{what}: {mega if in_bytes else f'{done} of {total}'} {note}".rstrip())

        yield plain
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=total or None, note="")
        yield lambda steps=1, note="": bars.update(task, advance=steps, note=note)
