"""What both commands share: one-line errors, exit statuses, messages and progress."""

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
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .base import FeatregError, UsageError

# Names of files and clips are printed as they are: they may hold [brackets] and :colons:.
console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: a scheduler of batch jobs, say, wants the machine back."""


class Commands(click.Group):
    """A group whose expected failures are one line and an exit status.

    0 all well, 1 something failed (and was named), 2 wrong usage, 130 interrupted (SIGINT),
    143 terminated (SIGTERM).
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a `FeatregError` into its line and status."""
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker imports the script that started it, and the script calls the command
            # again, since it has no `if __name__ == "__main__":`. The first call says so.
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
            _fail(
                f"{what}; what is finished stays, and the same command goes on from there", status
            )


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise `KeyboardInterrupt` here, once; a second one ends at once."""
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
    console.print(Text.assemble(("error:", "red"), f" {message}"))
    sys.exit(status)


class _Lines(logging.Handler):
    """Shows messages above a progress bar, warnings in colour."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console.print(record.getMessage(), style=style)


def say(message: str) -> None:
    """A line for the user, which ``--quiet`` leaves out."""
    logging.getLogger("featreg").info(message)


def warn(message: str) -> None:
    """A line that even ``--quiet`` leaves in."""
    logging.getLogger("featreg").warning(message)


def _set_verbosity(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    level = logging.WARNING if parameter.name == "quiet" else logging.DEBUG
    logging.getLogger("featreg").setLevel(level)


def group_options(command: Any) -> Any:
    """Give a group ``--quiet``, ``--verbose`` and ``--version``."""
    logger = logging.getLogger("featreg")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_Lines())
        logger.propagate = False
    for flag, text in (("quiet", "Say only what went wrong."), ("verbose", "Say more.")):
        command = click.option(
            f"--{flag}", is_flag=True, expose_value=False, callback=_set_verbosity, help=text
        )(command)
    return click.version_option(package_name="featreg")(command)


def work_option(command: Any) -> Any:
    """Give a command ``--work DIR``, passed on as ``work: Path``."""
    return click.option(
        "--work",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("featreg-work"),
        envvar="FEATREG_WORK",
        show_default=True,
        show_envvar=True,
        help="Working folder: all that featreg reads and writes.",
    )(command)


class Finite(click.FloatRange):
    """A number within bounds. click's own range lets nan through, and inf where no end is."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; fails with click's usage error if it is none, or out of bounds."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, found {number}", param, ctx)
        return number


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Move by `steps`, and show `note` beside the bar."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A bar with counts and time left; off the terminal, a line every tenth of the way."""
    quiet = not logging.getLogger("featreg").isEnabledFor(logging.INFO)
    if quiet or not console.is_terminal:
        done = 0

        def plain(steps: int = 1, note: str = "") -> None:
            nonlocal done
            before, done = done, done + steps
            if total and before * 10 // total != done * 10 // total:
                say(f"{what}: {done} of {total} {note}".rstrip())

        yield plain
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=total, note="")
        yield lambda steps=1, note="": bars.update(task, advance=steps, note=note)
