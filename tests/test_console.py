"""What is printed: names as they are, whatever rich would make of them."""

from __future__ import annotations

import io

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from featreg.datasets import console
from featreg.datasets.base import FeatregError
from featreg.extract.cli.prep import prep
from featreg.train.report.print_table import print_table

NAMES = ["song [live].mp3", "song [/x].mp3", "song :cat:.mp3", r"song \[b].mp3"]


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(pd.DataFrame({"file": [name], f"p {name}": [0.5]}))
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == f"file p {name}".split()
    assert row.split() == f"{name} 0.5".split()


@pytest.mark.parametrize("name", NAMES)
def test_messages_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    @console.group_options
    @click.group(cls=console.Commands)
    def group() -> None:
        pass

    @group.command()
    def fail() -> None:
        console.warn(f"{name}: odd")
        raise FeatregError(f"{name}: broken")

    with pytest.raises(SystemExit):
        group(["fail"])
    assert capsys.readouterr().err == f"{name}: odd\nerror: {name}: broken\n"


@pytest.mark.parametrize("name", NAMES)
def test_progress_notes_are_printed_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(console, "console", screen)
    with console.progress(f"reading {name}", 2) as advance:
        advance(1, note=f"at {name}")
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert f"reading {name}" in text
    assert f"at {name}" in text


@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_a_number_that_is_none_is_wrong_usage(wrong: str) -> None:
    result = CliRunner().invoke(prep, ["extract", "--dataset", "demo", "--clip-timeout", wrong])
    assert result.exit_code == 2
    assert f"'--clip-timeout': expected a finite number, found {wrong}" in result.output
