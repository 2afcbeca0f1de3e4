"""``train eval`` and ``train export``: test a trained model again, and export it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featreg.datasets.base import SPLITS
from featreg.datasets.console import work_option

from ..config.options import workers_option

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device on which the network runs.",
)


def attach(group: click.Group) -> None:
    """Add the commands to a group."""
    for command in (eval_command, export_command):
        group.add_command(command)


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
@device_option
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

    For a probe or a model trained with --fusion, onnx and torchscript contain the classifier but
    not the extractors: their input is the aligned features, and the audio for concat and film. A
    safetensors file names the extractors, and featreg.load_model computes the features.

    \b
    Example:
        train export demo-conreg-musicnn-a1-s0 --format onnx
    """
    from ..deploy.export import SUFFIXES, export
    from ..deploy.exported_model import contents
    from ..deploy.model_file import read_model
    from ..training.find_runs import choose_run

    chosen = choose_run(work, run, "the argument RUN")
    path = output or work / "exports" / f"{chosen.name}{SUFFIXES[format]}"
    model = chosen.path / "model.safetensors"
    for parity in export(model, format, path):
        click.echo(f"{parity.what}: largest difference {parity.difference:.1e}")
    count = chosen.read_json("config.json")["parameters"]["inference"]
    click.echo(f"{path}: {count:,} parameters, {path.stat().st_size / 1e6:.1f} MB")
    click.echo(contents(read_model(model)[1], format))
