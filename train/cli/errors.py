"""``train errors``: listen to the mistakes of a run, and choose clips to label."""

from __future__ import annotations

from pathlib import Path

import click

from featreg.datasets.base import SPLITS
from featreg.datasets.console import Finite, counted, say, work_option

from ..config.options import workers_option


def attach(group: click.Group) -> None:
    """Add the command to a group."""
    group.add_command(errors_command)


@click.command("errors")
@click.argument("run", required=False)
@click.option(
    "--split", type=click.Choice(SPLITS), default="test", help="Split of the labelled clips."
)
@click.option(
    "--top", type=click.IntRange(1), default=10, help="Maximum number of clips in each list."
)
@click.option(
    "--to-label",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Audio file without labels, or a folder of them, to rank together with the clips of the "
    "dataset that have no labels; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Page to write; the table has the suffix .csv.  [default: "
    "WORK/reports/errors-RUN-SPLIT.html]",
)
@click.option(
    "--embed-limit",
    type=Finite(0),
    default=25.0,
    metavar="MB",
    help="Maximum size of the audio in the page, in MB. If it is larger, all audio is written to "
    "a folder beside the page.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device on which the network runs.",
)
@workers_option
@work_option
def errors_command(
    run: str | None,
    split: str,
    top: int,
    files: tuple[Path, ...],
    output: Path | None,
    embed_limit: float,
    device: str,
    workers: int,
    work: Path,
) -> None:
    """Write a page to listen to the mistakes of RUN, and a CSV file.

    The page has the most confident mistakes, the least certain clips and, if there are clips
    without labels, those to label next. Each clip has its probabilities and labels, a
    spectrogram and an audio player. The audio is read from the aligned shards.

    \b
    Example:
        train errors demo-conreg-musicnn-a1-s0
        train errors demo-baseline-s0 --to-label recordings/ -o listen.html
    """
    from featreg.datasets.base import FeatregError, UsageError

    from ..evaluation.run_errors import find_errors
    from ..report.listening_page import write_listening_page
    from ..training.build import resolve_device
    from ..training.find_runs import choose_run

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {output}: expected the name of an HTML file, such as page.html")
    chosen = choose_run(work, run, "the argument RUN")
    found = find_errors(chosen, work, split, files, top, resolve_device(device), workers)
    for each in found.lists:
        say(f"{each.kind}: {each.found:,} of {counted(each.among, 'clip')}")
    path = output or work / "reports" / f"errors-{chosen.name}-{split}.html"
    for written in write_listening_page(path, found, embed_limit * 1e6):
        click.echo(f"written: {written}")
    if found.failed:
        failed = counted(len(found.failed), "file")
        raise FeatregError(f"{failed} to label failed, named above; the page has the others")
