"""``train predict``: classify audio files with a trained model."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.console import Finite, counted, progress, say, warn, work_option

from .models import device_option

if TYPE_CHECKING:
    from ..deploy.classifier import Classifier
    from ..deploy.find_audio import AudioFile, Failed
    from ..deploy.tag_files import Tagged
    from ..deploy.tags_csv import TagsCsv

_TOP = 5
_LEAST = 0.5


@click.command("predict")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--run",
    "wanted",
    metavar="RUN",
    help="Name of a run in WORK/runs, its folder, or a safetensors file.  [default: the only "
    "finished run]",
)
@click.option(
    "--format",
    type=click.Choice(["table", "csv", "json", "audacity"]),
    help="Output format: a table of the best classes, CSV with one column per class (class_file "
    "for a class called file), JSON, or a label track of Audacity.  [default: table; csv with "
    "--output]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="File to write instead of printing. A CSV is resumed: files that it contains are "
    "skipped, others are added. For audacity, a folder in which each audio file gets a label file.",
)
@click.option(
    "--hop",
    "hop_s",
    type=Finite(0, min_open=True),
    metavar="SECONDS",
    help="Interval between predictions over time, in seconds.  [default: one for the whole file]",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    help=f"Number of most probable classes to print.  [default: {_TOP} in a table, all in JSON]",
)
@click.option(
    "--min-score",
    "least",
    type=Finite(0, 1),
    help="Probability from which a class is a label of the format audacity.  "
    f"[default: {_LEAST:g}]",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="NAME=FILE",
    help="Weights file of an extractor that the model needs, to use instead of the default one; "
    "may be repeated.",
)
@device_option
@work_option
def predict_command(
    files: tuple[Path, ...],
    wanted: str | None,
    format: str | None,
    output: Path | None,
    hop_s: float | None,
    top: int | None,
    least: float | None,
    weights: tuple[str, ...],
    device: str,
    work: Path,
) -> None:
    """Classify audio FILES with a trained model.

    FILES may be folders, of which all audio files are classified; the file - stands for a list of
    paths from standard input, one per line or separated by null bytes. Files that cannot be
    processed are named, the remaining files are still processed, and the exit status is 1. Silent
    files are named too. A file may be 12 hours long, or 4 for a model that needs features (a probe,
    or a model trained with --fusion), which are computed from the audio.

    Output is in UTF-8; a byte of a file name that is not UTF-8, such as FF, is written as \\udcff,
    which Python's os.fsencode converts back.

    \b
    Example:
        train predict song.mp3 more-songs/ --run demo-conreg-musicnn-a1-s0
        train predict night.flac --hop 1 -o night.csv
        train predict recordings/ --hop 1 --format audacity -o labels
        find . -name '*.wav' | train predict - -o scores.csv
    """
    from featreg.datasets.base import FeatregError

    from ..deploy.classifier import load_model
    from ..deploy.find_audio import Failed, find_audio

    format = format or ("table" if output is None else "csv")
    _check_options(format, output, top, least)
    model = load_model(_model_path(work, wanted), device, weights=_weights(weights))
    if hop_s is not None:  # fail once, not for each file
        model.check_hop(hop_s)
    say(f"{model.card.name}: {len(model.classes)} classes, chunks of {model.chunk_s:g} s")
    for note in model.card.notes:
        say(note)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    everything = list(find_audio(files, sys.stdin.buffer))
    found = [each for each in everything if not isinstance(each, Failed)]
    failed = [each for each in everything if isinstance(each, Failed)]
    for each in failed:
        warn(each.reason)
    if format == "csv":
        failed += _write_csv(model, found, output, hop_s)
    elif format == "audacity":
        failed += _write_audacity(model, found, output, hop_s, _LEAST if least is None else least)
    else:
        failed += _write_all(model, found, output, hop_s, format, top)
    if failed:
        raise FeatregError(f"{len(failed)} of {len(everything)} files failed; they are named above")


def _check_options(format: str, output: Path | None, top: int | None, least: float | None) -> None:
    from featreg.datasets.base import UsageError

    if top is not None and format in ("csv", "audacity"):
        contains = "always contains all classes" if format == "csv" else "has its own --min-score"
        raise UsageError(
            f"--top {top} --format {format}: {format} {contains}; omit --top, or use --format json"
        )
    if least is not None and format != "audacity":
        raise UsageError(f"--min-score {least:g}: only for --format audacity, found {format}")
    if output is not None and format == "table":
        raise UsageError(f"--output {output} --format table: use --format csv or json")
    right = Path.is_dir if format == "audacity" else Path.is_file  # neither for a device
    if output is not None and output.exists() and not right(output):
        expected = "a folder" if format == "audacity" else "a file"
        raise UsageError(f"--output {output}: expected {expected} for --format {format}")


def _weights(assignments: Sequence[str]) -> dict[str, Path]:
    from featreg.datasets.base import UsageError

    found = {}
    for assignment in assignments:
        name, _, file = assignment.partition("=")
        if not (name and file):
            raise UsageError(f"--weights {assignment}: expected NAME=FILE, such as vggish=FILE")
        found[name] = Path(file).expanduser()
        if not found[name].exists():
            raise UsageError(f"--weights {assignment}: file not found")
    return found


def _tag(
    model: Classifier,
    files: Sequence[AudioFile],
    hop_s: float | None,
    use: Callable[[AudioFile, list[Tagged]], None],
) -> list[Failed]:
    """Predict files, pass the predictions of each to `use`, and return the failures."""
    from ..deploy.find_audio import Failed
    from ..deploy.tag_files import tag_files

    failed = []
    several = progress("predicting", len(files)) if len(files) > 1 else nullcontext()
    with several as advance:
        outcomes = tag_files(model, (file.path for file in files), hop_s)
        for file, outcome in zip(files, outcomes, strict=True):
            if isinstance(outcome, Failed):
                failed.append(outcome)
                warn(outcome.reason)
            else:
                use(file, outcome)
            if advance is not None:
                advance()
    return failed


def _write_csv(
    model: Classifier, files: Sequence[AudioFile], output: Path | None, hop_s: float | None
) -> list[Failed]:
    """Print the CSV, or add to the file `output` what it lacks."""
    from ..deploy.write_tags import csv_columns, csv_line, csv_row

    columns = csv_columns(model.classes, hop_s is not None)
    if output is None:
        click.echo(csv_line(columns))
    with _output_csv(output, columns) as table:

        def use(file: AudioFile, tagged: list[Tagged]) -> None:
            lines = [csv_row(one, hop_s is not None) for one in tagged]
            if table is None:
                click.echo("\n".join(lines))
            elif table.is_last(file.path):
                table.complete(lines)
            else:
                table.add(lines)

        if table is None:
            return _tag(model, files, hop_s, use)
        # The lines of the last file may be incomplete, and show whether the model is the same.
        last = [file for file in files if table.is_last(file.path)][:1]
        failed = _tag(model, last, hop_s, use)
        todo = list({file.path: file for file in files if file.path not in table}.values())
        failed += _tag(model, todo, hop_s, use)
        there = len({file.path for file in files}) - len(todo)
        say(f"{output}: {counted(len(todo), 'file')} to add, {there:,} already there")
        return failed


@contextmanager
def _output_csv(output: Path | None, columns: Sequence[str]) -> Iterator[TagsCsv | None]:
    from ..deploy.tags_csv import tags_csv

    if output is None:
        yield None
        return
    with tags_csv(output, columns) as table:
        yield table


def _write_audacity(
    model: Classifier,
    files: Sequence[AudioFile],
    output: Path | None,
    hop_s: float | None,
    least: float,
) -> list[Failed]:
    """Print the labels of one file, or write those of each file to a file in `output`."""
    from featreg.datasets.base import UsageError
    from featreg.datasets.shards.atomic_file import atomic_path

    from ..deploy.write_tags import to_audacity

    if output is None and len(files) > 1:
        raise UsageError(
            f"--format audacity: a label track belongs to one audio file, found {len(files)}; add "
            "--output FOLDER"
        )
    names: dict[str, Path] = {}
    for file in files:
        if names.setdefault(file.name, file.path) != file.path:
            raise UsageError(
                f"--output {output}: {file.path} and {names[file.name]} would both be written to "
                f"{file.name}.txt; give the folder that contains both, or use two output folders"
            )

    def use(file: AudioFile, tagged: list[Tagged]) -> None:
        text = to_audacity(tagged, model.classes, least)
        if output is None:
            click.echo(text, nl=False)
            return
        target = output / f"{file.name}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_text(text, "utf-8", "backslashreplace")

    failed = _tag(model, files, hop_s, use)
    if output is not None:
        say(f"{output}: {counted(len(files) - len(failed), 'label file')}")
    return failed


def _write_all(
    model: Classifier,
    files: Sequence[AudioFile],
    output: Path | None,
    hop_s: float | None,
    format: str,
    top: int | None,
) -> list[Failed]:
    """Print a table, or print or write JSON, once all files are processed."""
    from featreg.datasets.shards.atomic_file import atomic_path

    from ..deploy.write_tags import to_json, to_table
    from ..report.print_table import print_table

    found: list[Tagged] = []
    failed = _tag(model, files, hop_s, lambda _, tagged: found.extend(tagged))
    over_time = hop_s is not None
    if format == "table":
        if found:
            print_table(to_table(found, model.classes, top or _TOP, over_time))
        return failed
    text: Any = to_json(found, model.classes, top, over_time)
    if output is None:
        click.echo(text)
        return failed
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary:
        temporary.write_text(f"{text}\n", "utf-8", "backslashreplace")
    return failed


def _model_path(work: Path, wanted: str | None) -> Path:
    """The safetensors file of the selected run, or the selected file itself."""
    from ..training.find_runs import choose_run

    if wanted is not None and Path(wanted).is_file():
        return Path(wanted)
    return choose_run(work, wanted).path / "model.safetensors"
