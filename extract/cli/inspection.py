"""``prep inspect`` and ``prep verify``: describe, draw and check shards."""

from __future__ import annotations

from pathlib import Path

import click

from featreg.datasets.console import counted, progress, say


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="PNG file to draw a clip to, with its spectrogram, features and labels.",
)
@click.option("--clip", help="Id of the clip to draw.  [default: the first]")
def inspect(path: Path, plot: Path | None, clip: str | None) -> None:
    """Print the content of a shard, or of every shard in a folder, or draw one of its clips.

    The plot of a native shard shows one feature; that of the folder 'native' shows all features.

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
        raise click.UsageError("--clip requires --plot FILE")
    from ..inspection.describe import describe

    click.echo(describe(path))


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--workers", type=int, help="Number of worker processes.  [default: one per core]")
def verify(path: Path, workers: int | None) -> None:
    """Read and check every byte of a shard, or of every shard in a folder.

    The checks cover checksums, offsets, counts, time grids, labels, and that all values are finite.

    In the folder of a dataset, they also cover that every requested clip is present or has failed,
    and that aligned shards have the labels and splits of clips.csv.

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
        remedy = "follow the lines above"
        if damage:
            remedy = "delete each damaged shard, and run the command that wrote it again"
        counts_found = f"{counted(len(lines), 'error')} in {counted(len(shards), 'shard')}"
        raise FeatregError(f"{counts_found}; {remedy}")
    say(f"no errors in {counted(len(shards), 'shard')}")
