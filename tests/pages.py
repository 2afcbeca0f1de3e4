"""The pages of the documentation as something to follow: their code blocks, in order.

What a block is, its first line says::

    ```sh                         commands, a line each
    ```text                       what the commands or statements above print, numbers aside
    ```python                     statements; those of a page run in one session
    ```python title="a/file.py"   a file to write
    ```csv title="clips.csv"      likewise
    ```diff title="a/file.py"     a change of a file that is there

A block behind ``<!-- not run: REASON -->`` is for readers alone; its commands must still be ones
that can be typed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_lines import logical_lines

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- not run: (?P<reason>.+?) -->\n+ *)?"
    r"```(?P<kind>\w+)(?: title=\"(?P<title>.+?)\")?\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_FAILURE = re.compile(r"^error: |^\d+ clips? failed;", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its kind, the file it is for, its text, and whether it is followed."""

    kind: str
    title: str
    body: str
    line: int
    followed: bool


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        yield Block(match["kind"], match["title"] or "", body, line, match["reason"] is None)


def shape(line: str) -> str:
    """A line of output without what differs from machine to machine: numbers, and spaces."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,:]*", "#", line)).strip()


def apply_diff(text: str, diff: str) -> str:
    """`text` with the lines marked - replaced by those marked +; other lines must be there."""
    lines = [line for line in diff.splitlines() if not line.startswith("@@")]
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    assert text.count(before) == 1, f"not once in the file:\n{before}"
    return text.replace(before, after)


Type = Callable[[str], tuple[int, str]]


def follow(page: Path, folder: Path, type_in: Type) -> int:
    """Do what a page says, in `folder`; return how many commands and blocks of statements it has.

    The last command before an output that tells of a failure must fail, all others must not.

    Parameters
    ----------
    page
        Whose blocks are followed from top to bottom.
    folder
        Where its files are written and changed; in outputs it is called /home/me/music.
    type_in
        Runs one command line there; its status and all its output.
    """
    output, typed = "", 0
    session: dict[str, Any] = {}
    steps = [block for block in blocks(page) if block.followed]
    for block, after in zip(steps, [*steps[1:], None], strict=True):
        where = f"{page.name}:{block.line}"
        if block.kind == "sh":
            output = ""
            lines = list(logical_lines(block.body))
            fails = after is not None and after.kind == "text" and _FAILURE.search(after.body)
            for line in lines:
                status, said = type_in(line)
                expected = bool(fails) and line == lines[-1]
                assert (status != 0) == expected, f"{where}: {line}: {status}\n{said}"
                output += said.replace(str(folder), "/home/me/music")
                typed += 1
        elif block.kind == "text":
            there = [shape(line) for line in output.splitlines()]
            for line in filter(str.strip, block.body.splitlines()):
                if line.strip() != "...":
                    assert shape(line) in there, f"{where}: not printed: {line}\n{output}"
        elif block.kind == "python" and not block.title:
            output = execute(block.body, session, where)
            typed += 1
        elif block.title:
            path = folder / block.title
            if block.kind == "diff":
                path.write_text(apply_diff(path.read_text(), block.body))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.body)
    return typed


def execute(statements: str, session: dict[str, Any], where: str) -> str:
    """Run statements in a session, as a notebook does; return what they print."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(statements, where, "exec"), session)
    return printed.getvalue()


def in_shell(line: str, folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Status and output of a command line, typed in `folder` with this environment activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    done = subprocess.run(
        ["bash", "-c", line.replace("python ", f"{sys.executable} ", 1)],
        cwd=folder,
        env={**environment, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout
