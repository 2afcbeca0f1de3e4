"""``prep``: audio and labels in, aligned shards of features out."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from featreg.datasets.console import (
    Commands,
    Finite,
    group_options,
    progress,
    say,
    warn,
    work_option,
)

from . import datasets as cli_datasets
from . import doctor as cli_doctor
from . import weights as cli_weights
from .datasets import complete_dataset, reading_options

# What the options offer; the modules that give these words meaning bring torch and more.
_DEVICES = click.Choice(["auto", "cpu", "cuda"])
_PRECISIONS = click.Choice(["float32", "bfloat16"])
_BACKENDS = click.Choice(["torch", "openl3"])
_RESAMPLERS = click.Choice(["soxr_hq", "soxr_vhq", "kaiser_best"])
_SPLITS = click.Choice(["train", "valid", "test"])
_MODES = click.Choice(["repeat", "area", "linear"])


def _complete_features(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """For the shell, the names that may stand behind the last comma."""
    from ..extractors.registry import FEATURES

    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{name}") for name in FEATURES if name.startswith(last)]


@click.group(cls=Commands, context_settings={"show_default": True})
@group_options
def prep() -> None:
    """Extract pre-trained features from audio, and align them in time.

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
    help="Name of a dataset, or a manifest (a CSV file).",
)
@reading_options
@click.option(
    "--features",
    required=True,
    shell_complete=_complete_features,
    help="Features, such as vggish,openl3; or your own: MODULE:CLASS, or a name for a folder.",
)
@click.option("--split", "splits", type=_SPLITS, multiple=True, help="Only this split; may repeat.")
@click.option("--limit", type=click.IntRange(1), help="At most so many clips of each split.")
@click.option("--workers", type=int, help="Processes.  [default: one a core, or one a GPU]")
@click.option("--scheduler", help="Address of a Dask cluster to work on.")
@click.option(
    "--device",
    type=_DEVICES,
    default="auto",
    help="Where the networks run. auto: on this machine's GPUs, if any; with --scheduler, on cpu.",
)
@click.option("--precision", type=_PRECISIONS, default="float32", help="Of the networks' products.")
@click.option("--backend", type=_BACKENDS, default="torch", help="Who computes OpenL3.")
@click.option("--weights", "weights", multiple=True, metavar="NAME=FILE", help="Weights to use.")
@click.option("--set", "assignments", multiple=True, metavar="FEATURE.KEY=VALUE", help="A setting.")
@click.option("--resampler", type=_RESAMPLERS, default="soxr_hq", help="How rates are changed.")
@click.option("--shard-clips", type=click.IntRange(1), default=64, help="Clips a shard.")
@click.option(
    "--max-failures",
    type=click.IntRange(0),
    default=0,
    help="Clips that may fail before the exit status is 1; known unusable files do not count.",
)
@click.option("--retry-failed", is_flag=True, help="Try the clips again that failed before.")
@click.option(
    "--clip-timeout",
    type=Finite(0, min_open=True),
    default=600.0,
    metavar="SECONDS",
    help="Longest time that decoding a clip, or one call of a network, may take.",
)
@click.option("--keep-silent", is_flag=True, help="Keep clips whose every sample is zero.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, why, and what it takes.")
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
    """Compute features of every clip, into native shards.

    Finished shards are skipped; changing a setting recomputes only what it affects. Run the
    same command again to resume a run that was stopped.

    A feature of your own is a class in a module of yours, a subclass of
    featreg.extract.extractors.custom.WholeClip, or a folder of CLIP_ID.npy files, arrays of shape
    (rows, values) with so many seconds from row to row.

    \b
    Example:
        prep extract --dataset mtat --root /data/mtat --features vggish,openl3
        prep extract --dataset mtat --features musicnn,mymodule:Chroma
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
    # Workers elsewhere may stand in another folder.
    folder = DatasetDir((work / found.name).absolute())
    for note in found.notes:
        warn(note)
    # The GPUs of a cluster are its workers' own.
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
            f"failed clips: {summary.failed}, listed with the reason in {folder.failures_csv}; "
            "--retry-failed tries them again"
        )
    if summary.failed > max_failures:
        sys.exit(1)


@prep.command()
@click.option("--resolution", type=float, required=True, metavar="SECONDS", help="Of a row.")
@click.option("--features", help="Features side by side.  [default: all that were extracted]")
@click.option("--mode", type=_MODES, default="repeat", help="repeat is the paper's.")
@click.option("--dataset", help="Dataset in the working folder.  [default: the only one]")
@click.option("--workers", type=int, help="Processes.  [default: one a core]")
@click.option("--scheduler", help="Address of a Dask cluster to work on.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and the disk it takes.")
@work_option
def align(
    resolution: float,
    features: str | None,
    mode: str,
    dataset: str | None,
    workers: int | None,
    scheduler: str | None,
    dry_run: bool,
    work: Path,
) -> None:
    """Bring extracted features to one time grid, into aligned shards.

    \b
    Example:
        prep align --resolution 0.1
    """
    from featreg.datasets.base import FeatregError
    from featreg.datasets.shards.hdf5 import DiskError
    from featreg.datasets.shards.workdir import DatasetDir, choose_dataset

    from ..alignment.align_shards import align_shard, plan_alignment
    from ..extractors.registry import parse_names
    from ..pipeline.dask_pool import plan_workers, run_jobs
    from ..pipeline.dry_run import (
        alignment_bytes,
        describe_alignment,
        describe_space,
        warn_of_space,
    )

    folder = DatasetDir(choose_dataset(work, dataset).path.absolute())
    names = parse_names(features) if features else []
    with nullcontext() if dry_run else folder.exclusive():
        plan = plan_alignment(folder, names, resolution, mode)  # type: ignore[arg-type]
        team = plan_workers(len(plan.jobs), workers, scheduler, alone=False)
        needed = alignment_bytes(plan)
        if dry_run:
            for line in (*describe_alignment(plan), describe_space(folder.path, needed)):
                click.echo(line)
            return
        warn_of_space(folder.path, needed)
        for path in plan.stale:
            path.unlink()
        failures = []
        with progress("align", len(plan.jobs)) as advance:
            for job, outcome in run_jobs(align_shard, plan.jobs, team):
                if isinstance(outcome, DiskError):
                    raise outcome
                if isinstance(outcome, Exception):
                    failures.append(f"{job.target}: {outcome}")
                advance()
    if failures:
        raise FeatregError(f"shards that could not be written: {len(failures)}; {failures[0]}")
    if plan.absent:
        warn(f"clips left out because they lack a feature: {plan.absent}")
    for note in folder.read_dataset().notes:
        warn(note)
    written = len(plan.jobs)
    say(f"{plan.clips} clips in {plan.target}: {written} shards written, {plan.done} up to date")


@prep.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw a clip to this PNG file: spectrogram, features and labels.",
)
@click.option("--clip", help="Clip to draw.  [default: the first]")
def inspect(path: Path, plot: Path | None, clip: str | None) -> None:
    """Print what a shard, or every shard in a folder, holds; or draw one of its clips.

    The picture of a native shard shows its feature, that of the folder native every feature.

    \b
    Example:
        prep inspect featreg-work/mtat/native/vggish
        prep inspect featreg-work/mtat/native --clip 2 --plot native.png
        prep inspect featreg-work/mtat/aligned --clip 2 --plot clip.png
    """
    if plot is not None:
        from ..inspection.plot_clip import draw, read_scene

        scene = read_scene(path, clip)
        draw(scene, plot)
        say(f"{scene.clip_id} drawn to {plot}")
        return
    if clip is not None:
        raise click.UsageError("--clip says what --plot draws: give --plot FILE as well")
    from ..inspection.describe import describe

    click.echo(describe(path))


@prep.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--workers", type=int, help="Processes.  [default: one a core]")
def verify(path: Path, workers: int | None) -> None:
    """Read every byte of a shard, or of every shard in a folder, and check it.

    Checks checksums, offsets, counts, timing, labels, and that all values are finite.

    For a dataset's folder it also checks that every clip that was asked for is present or has
    failed, and that aligned shards have the labels and splits of clips.csv.

    \b
    Example:
        prep verify featreg-work
    """
    from featreg.datasets.base import FeatregError
    from featreg.datasets.shards.hdf5 import find_shards

    from ..inspection.verify import faults
    from ..inspection.verify_folder import dataset_folders, folder_faults
    from ..pipeline.dask_pool import plan_workers, run_jobs

    shards = find_shards(path)
    damage: dict[Path, list[str]] = {}
    with progress("verify", len(shards)) as advance:
        team = plan_workers(len(shards), workers, None, alone=False)
        for shard, outcome in run_jobs(faults, shards, team):
            found = [f"{shard}: {outcome}"] if isinstance(outcome, Exception) else outcome
            if found:
                damage[shard] = found
            advance()
    lines = sorted(fault for found in damage.values() for fault in found)
    for folder in dataset_folders(path, shards):
        wrong, counts = folder_faults(folder, damage.keys())
        lines += wrong
        for count in counts:
            say(count)
    for line in lines:
        click.echo(line)
    if lines:
        remedy = "the lines above say what to do"
        if damage:
            remedy = "delete each damaged shard, and run the command that wrote it again"
        raise FeatregError(f"faults found: {len(lines)}, in {len(shards)} shards; {remedy}")
    say(f"no faults in {len(shards)} shards")


prep.add_command(cli_datasets.datasets)
prep.add_command(cli_datasets.download)
prep.add_command(cli_weights.weights)
prep.add_command(cli_doctor.doctor)
