"""``train predict``, ``train eval`` and ``train export``: use a trained model."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.base import SPLITS
from featreg.datasets.console import Finite, progress, say, warn, work_option

from ..config.options import workers_option

if TYPE_CHECKING:
    from ..deploy.classifier import Classifier

_RUN = click.option(
    "--run",
    "wanted",
    metavar="RUN",
    help="Name of a run in WORK/runs, its folder, or a safetensors file.  [default: the only "
    "finished run]",
)
_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device on which the network runs.",
)
_TOP = 5


def attach(group: click.Group) -> None:
    """Add the commands to a group."""
    for command in (predict_command, eval_command, export_command):
        group.add_command(command)


@click.command("predict")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_RUN
@click.option(
    "--format",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    help="Output format: a table of the best classes, CSV with one column per class (class_file "
    "for a class called file), or JSON.",
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
@_DEVICE
@work_option
def predict_command(
    files: tuple[Path, ...],
    wanted: str | None,
    format: str,
    hop_s: float | None,
    top: int | None,
    device: str,
    work: Path,
) -> None:
    """Classify audio FILES with a trained model.

    FILES may be folders, of which all audio files are classified. Files that cannot be processed
    are named, the remaining files are still processed, and the exit status is 1. Silent files are
    named too. Output is in UTF-8; a byte of a file name that is not UTF-8, such as FF, is written
    as \\udcff, which Python's os.fsencode converts back.

    \b
    Example:
        train predict song.mp3 more-songs/ --run demo-conreg-musicnn-a1-s0
        train predict song.mp3 --hop 1 --format csv > song.csv
    """
    from featreg.datasets.base import FeatregError, UsageError

    from ..deploy.classifier import load_model
    from ..deploy.tag_files import Failed, csv_header, csv_row, find_audio, tag, to_json, to_table
    from ..report.print_table import print_table

    if format == "csv" and top is not None:
        raise UsageError(
            f"--top {top} --format csv: CSV always contains all classes; omit --top, or use "
            "--format json"
        )
    model: Classifier = load_model(_model_path(work, wanted), device)
    if hop_s is not None:  # fail once, not for each file
        model.check_hop(hop_s)
    say(f"{model.card.name}: {len(model.classes)} classes, chunks of {model.chunk_s:g} s")
    for note in model.card.notes:
        say(note)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    if format == "csv":
        click.echo(csv_header(model.classes, hop_s is not None))
    found, failed, everything = [], 0, list(find_audio(files))
    several = progress("predicting", len(everything)) if len(everything) > 1 else nullcontext()
    with several as advance:
        for each in everything:
            outcome = each if isinstance(each, Failed) else tag(model, each, hop_s)
            if advance is not None:
                advance()
            if isinstance(outcome, Failed):
                failed += 1
                warn(outcome.reason)
            elif format == "csv":
                for one in outcome:
                    click.echo(csv_row(one))
            else:
                found += outcome
    if format == "json":
        click.echo(to_json(found, model.classes, top))
    elif found:
        print_table(to_table(found, model.classes, top or _TOP))
    if failed:
        raise FeatregError(f"{failed} of {len(everything)} files failed; they are named above")


@click.command("eval")
@click.argument("run", required=False)
@click.option("--split", type=click.Choice(SPLITS), default="test", help="Split to evaluate.")
@click.option("--dataset", help="Dataset in the working folder.  [default: the run's]")
@click.option("--aligned", help="Aligned set of the dataset.  [default: the run's]")
@click.option(
    "--group",
    metavar="[FILE.csv:]COLUMN",
    help="Column of WORK/DATASET/clips.csv, or of another CSV file with the column clip_id: its "
    "groups are resampled for the intervals.  [default: as in the run]",
)
@click.option(
    "--format",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Output format; JSON has all digits, and the keys of report.json.",
)
@workers_option
@_DEVICE
@work_option
def eval_command(
    run: str | None,
    split: str,
    dataset: str | None,
    aligned: str | None,
    group: str | None,
    format: str,
    workers: int,
    device: str,
    work: Path,
) -> None:
    """Evaluate the model of RUN on a split.

    The output has the metrics with 95 % confidence intervals, one line per class and, for one
    class per clip, the confusion matrix. Precision, recall and F1 use the most probable class or,
    for several classes per clip, thresholds chosen on the validation split. With the
    default options, the numbers equal those in the run's report.

    \b
    Example:
        train eval demo-conreg-musicnn-a1-s0 --split valid
    """
    import json

    from ..evaluation.evaluate_run import evaluate_run
    from ..training.build import resolve_device
    from ..training.find_runs import choose_run

    chosen = choose_run(work, run, "the argument RUN")
    where = resolve_device(device)
    found = evaluate_run(chosen, work, split, dataset, aligned, where, workers, group)
    if format == "json":
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['run']}, {found['clips']} {split} clips of {found['shards']}")
    _print_evaluation(found)
    for note in found["notes"]:
        click.echo(note)


def _print_evaluation(found: dict[str, Any]) -> None:
    """Print the metrics, the classes, and the classes without a score."""
    import pandas as pd

    from ..evaluation.metrics import METRICS
    from ..report.print_table import print_table

    rows = [
        {
            "metric": METRICS[name].title,
            "value": f"{value:.3f}",
            "95 % interval": " to ".join(f"{end:.3f}" for end in found["intervals"][name]),
        }
        for name, value in found["metrics"].items()
    ]
    print_table(pd.DataFrame(rows))
    classes = pd.DataFrame(found["classes"])
    for name in ("pr_auc", "roc_auc", "precision", "recall", "f1"):
        classes[name] = [
            "-" if value is None or value != value else f"{value:.3f}" for value in classes[name]
        ]
    print_table(classes.rename(columns={"name": "class", "pr_auc": "PR-AUC", "roc_auc": "ROC-AUC"}))
    if "confusion" in found:
        names = classes["name"]
        matrix = pd.DataFrame(found["confusion"], columns=names)
        matrix.insert(0, "true class", names)
        print_table(matrix)
    for name, left in found["undefined"].items():
        if left:
            click.echo(f"{METRICS[name].title} excludes classes without a score: {', '.join(left)}")


@click.command("export")
@click.argument("run", required=False)
@click.option(
    "--format",
    type=click.Choice(["onnx", "torchscript", "safetensors"]),
    default="onnx",
    help="File format; onnx requires `pip install '.[onnx]'` in featreg's repository.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Output file.  [default: WORK/exports/RUN with the suffix of the format]",
)
@work_option
def export_command(run: str | None, format: str, output: Path | None, work: Path) -> None:
    """Export the model of RUN for other programs.

    The exported model maps audio to probabilities, and accepts any number of clips of any length.
    It is compared with the original before the command ends.

    \b
    Example:
        train export demo-conreg-musicnn-a1-s0 --format onnx
    """
    from ..deploy.export import SUFFIXES, export
    from ..training.find_runs import choose_run

    chosen = choose_run(work, run, "the argument RUN")
    path = output or work / "exports" / f"{chosen.name}{SUFFIXES[format]}"
    for parity in export(chosen.path / "model.safetensors", format, path):
        click.echo(f"{parity.what}: largest difference {parity.difference:.1e}")
    count = chosen.read_json("config.json")["parameters"]["inference"]
    click.echo(f"{path}: {count:,} parameters, {path.stat().st_size / 1e6:.1f} MB")


def _model_path(work: Path, wanted: str | None) -> Path:
    """The safetensors file of the selected run, or the selected file itself."""
    from ..training.find_runs import choose_run

    if wanted is not None and Path(wanted).is_file():
        return Path(wanted)
    return choose_run(work, wanted).path / "model.safetensors"
