"""``prep``: extract features from audio, and align, inspect and verify them."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from featreg.datasets.console import (
    Commands,
    Finite,
    counted,
    group_options,
    say,
    warn,
    work_option,
)

from . import align as cli_align
from . import datasets as cli_datasets
from . import doctor as cli_doctor
from . import embed as cli_embed
from . import export as cli_export
from . import features as cli_features
from . import inspection as cli_inspection
from . import weights as cli_weights
from .datasets import complete_dataset, reading_options

# Values of the options, repeated here because the modules that define them import torch.
_DEVICES = click.Choice(["auto", "cpu", "cuda"])
_PRECISIONS = click.Choice(["float32", "bfloat16"])
_BACKENDS = click.Choice(["torch", "openl3"])
_RESAMPLERS = click.Choice(["soxr_hq", "soxr_vhq", "kaiser_best"])
_SPLITS = click.Choice(["train", "valid", "test"])


def _complete_features(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Shell completion: names of features after the last comma."""
    from ..extractors.registry import known_features

    before, comma, last = incomplete.rpartition(",")
    names = [name for name in known_features() if name.startswith(last)]
    return [CompletionItem(f"{before}{comma}{name}") for name in names]


@click.group(cls=Commands, context_settings={"show_default": True})
@group_options
def prep() -> None:
    """Extract features from audio with pre-trained models, and align them in time.

    \b
    Example:
        prep extract --dataset mtat --features vggish,openl3
        prep align --resolution 0.1
    """


@prep.command()
@click.option(
    "--dataset",
    required=True,
    shell_complete=complete_dataset,
    help="Name of a dataset, or your own clips: a CSV, TSV or JSON lines file, or a folder of "
    "audio, whose folders are the classes.",
)
@reading_options
@click.option(
    "--features",
    required=True,
    shell_complete=_complete_features,
    help="Features, separated by commas, such as vggish,openl3. A model is NAME=SCHEME:SOURCE, "
    "such as birds=onnx:model.onnx; your own feature is MODULE:CLASS, or any name with --set "
    "NAME.folder=DIR.",
)
@click.option(
    "--split",
    "splits",
    type=_SPLITS,
    multiple=True,
    help="Split to extract; may be repeated.  [default: all]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Maximum number of clips of each split.  [default: all]",
)
@click.option(
    "--workers",
    type=int,
    help="Number of worker processes.  [default: one per core, or one per GPU]",
)
@click.option("--scheduler", help="Address of a Dask cluster to use instead of local workers.")
@click.option(
    "--device",
    type=_DEVICES,
    default="auto",
    help="Device of the networks. auto: the GPUs of this machine, if any; cpu with --scheduler.",
)
@click.option(
    "--precision",
    type=_PRECISIONS,
    default="float32",
    help="Precision of the networks' matrix products.",
)
@click.option("--backend", type=_BACKENDS, default="torch", help="Implementation of OpenL3 to use.")
@click.option(
    "--weights",
    "weights",
    multiple=True,
    metavar="NAME=FILE",
    help="Weights file to use instead of the default one; may be repeated.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FEATURE.KEY=VALUE",
    help="Setting of a feature; may be repeated.",
)
@click.option(
    "--resampler", type=_RESAMPLERS, default="soxr_hq", help="Algorithm for sample-rate conversion."
)
@click.option(
    "--shard-clips", type=click.IntRange(1), default=64, help="Maximum number of clips per shard."
)
@click.option(
    "--max-failures",
    type=click.IntRange(0),
    default=0,
    help="Number of clips that may fail before the exit status is 1, without the files that are "
    "known to be unusable.",
)
@click.option("--retry-failed", is_flag=True, help="Retry the clips that failed in earlier runs.")
@click.option(
    "--clip-timeout",
    type=Finite(0, min_open=True),
    default=600.0,
    metavar="SECONDS",
    help="Maximum time for decoding a clip, or for one call of a network, in seconds.",
)
@click.option("--keep-silent", is_flag=True, help="Keep clips in which every sample is zero.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the work to do, the reasons and the required disk space, and exit.",
)
@work_option
def extract(
    dataset: str,
    root: Path | None,
    features: str,
    splits: tuple[str, ...],
    limit: int | None,
    workers: int | None,
    scheduler: str | None,
    device: str,
    precision: str,
    backend: str,
    weights: tuple[str, ...],
    assignments: tuple[str, ...],
    resampler: str,
    shard_clips: int,
    max_failures: int,
    retry_failed: bool,
    clip_timeout: float,
    keep_silent: bool,
    dry_run: bool,
    work: Path,
    **reading: object,
) -> None:
    """Compute features of every clip and store them in native shards.

    Finished shards are skipped; changing a setting recomputes only what it affects. Run the
    same command again to resume an interrupted run.

    A model is a file or a module, under a name of your choice: NAME=onnx:FILE, ts:FILE
    (TorchScript), tflite:FILE, hear:MODULE[:WEIGHTS] (HEAR API) or hf:MODEL (Hugging Face).

    Your own feature is a subclass of featreg.extract.extractors.custom.WholeClip or
    windowed.Windowed in an importable module, or a folder of files CLIP_ID.npy with arrays of shape
    (frames, dimensions) and a constant hop in seconds.

    \b
    Example:
        prep extract --dataset mtat --root /data/mtat --features vggish,openl3
        prep extract --dataset mtat --features musicnn,mymodule:Chroma
        prep extract --dataset mtat --features birds=onnx:model.onnx --set birds.rate=16000
        prep extract --dataset mtat --features chroma --set chroma.folder=DIR --set chroma.hop=0.1
    """
    from featreg.datasets.collections.registry import read
    from featreg.datasets.shards.workdir import DatasetDir

    from ..extractors.registry import make_specs
    from ..pipeline.dask_pool import count_gpus, plan_workers
    from ..pipeline.dry_run import describe, describe_space, extraction_bytes, warn_of_space
    from ..pipeline.plan import Request, make_plan
    from ..pipeline.run import run_extraction

    found = read(dataset, root, work=work, **reading)
    # Workers may have another current folder.
    folder = DatasetDir((work / found.name).absolute())
    for line in found.understood:
        say(line)
    for note in found.notes:
        warn(note)
    # Each worker of a cluster uses its own GPU.
    gpus = count_gpus(device) if scheduler is None else int(device == "cuda")
    where = "cuda" if gpus else "cpu"
    specs = make_specs(
        found,
        features,
        assignments,
        weights,
        where,
        precision,  # type: ignore[arg-type]
        backend,
        fetch=not dry_run,
    )
    request = Request(specs, resampler, keep_silent, shard_clips)  # type: ignore[arg-type]
    with nullcontext() if dry_run else folder.exclusive():
        plan = make_plan(found, folder, request, splits, limit, retry_failed)
        team = plan_workers(len(plan.jobs), workers, scheduler, gpus)
        needed = extraction_bytes(folder, plan)
        if dry_run:
            for line in (*describe(plan, request), describe_space(folder.path, needed)):
                click.echo(line)
            return
        warn_of_space(folder.path, needed)
        names = [spec.name for spec in specs]
        summary = run_extraction(found, folder, names, plan, team, clip_timeout)
    say(str(summary))
    if summary.failed:
        warn(
            f"{counted(summary.failed, 'clip')} failed; see {folder.failures_csv} for the reasons, "
            "and use --retry-failed to retry"
        )
    if summary.failed > max_failures:
        sys.exit(1)


prep.add_command(cli_align.align)
prep.add_command(cli_inspection.inspect)
prep.add_command(cli_inspection.verify)
prep.add_command(cli_embed.embed)
prep.add_command(cli_export.export)
prep.add_command(cli_datasets.datasets)
prep.add_command(cli_datasets.download)
prep.add_command(cli_features.features)
prep.add_command(cli_weights.weights)
prep.add_command(cli_doctor.doctor)
