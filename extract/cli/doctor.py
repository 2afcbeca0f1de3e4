"""``prep doctor``: whether this machine can do the work, said before a night is spent."""

from __future__ import annotations

from pathlib import Path

import click

from featreg.datasets.base import FeatregError
from featreg.datasets.console import work_option

_MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "broken": ("!!", "red")}


@click.command()
@work_option
def doctor(work: Path) -> None:
    """Look at packages, processor, GPU, codecs, weights, folders and datasets.

    What is missing (--) comes with the line that brings it; exit status 1 only if
    something is broken (!!) that extraction or training needs.

    \b
    Example:
        prep doctor
    """
    from ..inspection.doctor import examine

    broken = 0
    for title, findings in examine(work):
        click.secho(title, bold=True)
        for finding in findings:
            mark, colour = _MARKS[finding.level]
            click.echo(f"  {click.style(mark, fg=colour)} {finding.text}")
            if finding.remedy:
                click.echo(f"       {finding.remedy}")
            broken += finding.level == "broken"
    if broken:
        raise FeatregError(f"{broken} things are broken; the lines below each !! mend them")
    click.echo("nothing that extraction or training needs is broken")
