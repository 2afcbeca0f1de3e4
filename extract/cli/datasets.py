"""``prep datasets`` and ``prep download``: list, check and download datasets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from featreg.datasets.console import progress, say, warn, work_option

_Command = TypeVar("_Command", bound=Callable[..., Any])


def complete_dataset(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Shell completion: names of known datasets, or else files."""
    from featreg.datasets.collections import registry

    names = [name for name in registry.names() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder with the dataset's files.  [default: $FEATREG_DATA/NAME, else WORK/NAME/source]",
)


def reading_options(command: _Command) -> _Command:
    """Add ``--root`` and the other options of ``registry.read`` to a command."""
    for option in (
        click.option(
            "--group",
            metavar="COLUMN",
            help="Column of a label file; clips with the same value stay in one split.",
        ),
        click.option(
            "--task",
            type=click.Choice(["multi-label", "single-label"]),
            help="Task of own clips: any number of classes per clip, or exactly one.  "
            "[default: single-label if every clip has one of several classes]",
        ),
        *(
            click.option(
                f"--{role}-column",
                metavar="COLUMN",
                help=f"Column of a label file with {what}.  [default: found by usual names]",
            )
            for role, what in (
                ("path", "the audio file"),
                ("label", "the classes"),
                ("split", "the split"),
                ("fold", "the fold"),
            )
        ),
        click.option(
            "--label-separator",
            metavar="TEXT",
            help="Text between the classes in a cell; '' if a cell is one class.  [default: the "
            "first of | ; , that occurs]",
        ),
        click.option(
            "--split-seed",
            type=click.IntRange(0),
            metavar="INTEGER",
            help="Seed of the splits that are made for own clips.  [default: 0]",
        ),
        click.option("--esc10", is_flag=True, help="For esc50, use the ESC-10 subset."),
        click.option(
            "--all-clips", is_flag=True, help="For mtat, include clips without a top-50 tag."
        ),
        click.option(
            "--allow-missing",
            is_flag=True,
            help="Use an incomplete dataset; every result then states what is missing.",
        ),
        root_option,
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name", required=False, metavar="[NAME_OR_PATH]", shell_complete=complete_dataset)
@click.option("--check", is_flag=True, help="Decode the first block of every file of the dataset.")
@reading_options
@work_option
def datasets(
    name: str | None, check: bool, root: Path | None, work: Path, **options: object
) -> None:
    """List the known datasets and which of their files are present, or check one dataset.

    With a name, a label file or a folder, the clips are read as by `prep extract` and counted;
    `prep --verbose` names every missing file. With --check, files that cannot be decoded are
    named, and the exit status is 1 if there are any.

    \b
    Example:
        prep datasets
        prep datasets mtat --check --root /data/mtat
        prep datasets clips.csv --label-column genre --group artist
        prep --verbose datasets mtat --allow-missing
    """
    from featreg.datasets.base import UsageError
    from featreg.datasets.collections import registry

    if name is None:
        if check or root is not None:
            raise UsageError("--check and --root require the name of a dataset: prep datasets NAME")
        for known in registry.names():
            _describe(known, work)
        return
    dataset = registry.read(name, root, work=work, **options)
    for line in dataset.understood:
        say(line)
    for note in dataset.notes:
        warn(note)
    labels = f"{len(dataset.classes)} classes, {dataset.task}" if dataset.classes else "no labels"
    click.echo(f"{dataset.name}: {_count(dataset)}, {labels}")
    if check:
        from featreg.datasets.audio.check import faults

        bad = 0
        with progress("check", len(dataset.clips)) as advance:
            for clip, fault in faults(dataset.clips):
                advance()
                if fault:
                    bad += 1
                    click.echo(f"{clip.clip_id}: {fault}")
        good = len(dataset.clips) - bad
        say(f"{good:,} {'file' if good == 1 else 'files'} can be decoded, {bad:,} cannot")
        sys.exit(1 if bad else 0)


def _describe(name: str, work: Path) -> None:
    """Print the description of a known dataset."""
    from featreg.datasets.base import FeatregError
    from featreg.datasets.collections import registry

    info = registry.info(name)
    root = registry.default_root(name, work)
    if root.is_dir():
        try:
            found = f"{_count(registry.read(name, None, work=work))} in {root}"
        except FeatregError as error:
            found = f"incomplete: {error}"
    else:
        found = f"no files; folder {root} not found"
    train, valid, test = info.clips
    click.echo(f"{click.style(name, bold=True)}: {info.title}")
    for title, text in (
        ("task", f"{info.task}, {len(info.classes)} classes; selected by {info.metric}"),
        ("clips", f"{train:,} train, {valid:,} valid, {test:,} test"),
        ("license", info.licence),
        ("citation", info.citation),
        ("needs", info.needs),
        ("found", found),
    ):
        click.echo(f"  {title:<9} {text}")


def _count(dataset: Any) -> str:
    from featreg.datasets.shards.workdir import splits_of

    splits = splits_of(dataset.clips)
    return f"{', '.join(f'{len(clips):,} {split}' for split, clips in splits.items())} clips"


@click.command()
@click.argument("name", shell_complete=complete_dataset)
@root_option
@work_option
def download(name: str, root: Path | None, work: Path) -> None:
    """Download the labels and audio of a dataset, as far as they are published.

    Run the same command again to resume an interrupted download.

    \b
    Example:
        prep download mtat
    """
    from featreg.datasets.collections import registry
    from featreg.datasets.collections.download import download as download_dataset

    download_dataset(name, root or registry.default_root(name, work))
