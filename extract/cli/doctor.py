"""``prep doctor``: check that this machine can extract and train."""

from __future__ import annotations

from pathlib import Path

import click

from featreg.datasets.base import FeatregError
from featreg.datasets.console import work_option

_MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "broken": ("!!", "red")}


@click.command()
@work_option
def doctor(work: Path) -> None:
    """Check packages, processor, GPU, codecs, weights, folders and datasets.

    Missing parts (--) are listed with the command that installs them. The exit status is 1
    only if something that extraction or training requires does not work (!!).

    \b
    Example:
        prep doctor
    """
    from ..inspection.doctor import examine

    broken = 0
    for title, findings in examine(work):
        click.secho(title, bold=True)
        for finding in findings:
            mark, color = _MARKS[finding.level]
            click.echo(f"  {click.style(mark, fg=color)} {finding.text}")
            if finding.remedy:
                click.echo(f"       {finding.remedy}")
            broken += finding.level == "broken"
    if broken:
        checks = "1 check" if broken == 1 else f"{broken} checks"
        raise FeatregError(f"{checks} failed; follow the lines below each !!")
    click.echo("everything that extraction and training require works")
