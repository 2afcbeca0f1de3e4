"""``prep export``: write stored features to files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featreg.datasets.console import counted, say

if TYPE_CHECKING:
    from ..export.pool import Pool

POOL = click.option(
    "--pool",
    type=click.Choice(["mean", "max", "mean+std"]),
    help="Pool the frames of each clip to one vector.  [default: every frame]",
)


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["npz", "npy", "csv", "parquet"]),
    required=True,
    help="npz: one file of NumPy arrays; npy: a folder of them; csv or parquet: a table.",
)
@POOL
@click.option("--features", help="Features to export, separated by commas.  [default: all]")
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("export"),
    help="Folder for the files, one for each feature.",
)
def export(path: Path, format: str, pool: Pool | None, features: str | None, output: Path) -> None:
    """Write the features in a shard, or in all shards of a folder, to files.

    The frames of native shards are on the grid of the feature, those of aligned shards on the
    common time grid. Tables have the columns clip_id and time_s (the center of the frame in
    seconds), or with --pool clip_id, split and labels, followed by the values. Arrays are called
    values, times, offset, clip_id, duration_s, split, classes, label and label_mask.

    \b
    Example:
        prep export featreg-work/demo/native/musicnn --format csv --pool mean
        prep export featreg-work/demo/aligned/musicnn-0.1s --format npz -o arrays
    """
    from ..export.read_features import read_features
    from ..export.write_arrays import write_npy, write_npz
    from ..export.write_tables import import_pyarrow, write_csv, write_parquet
    from ..extractors.feature_options import parse_names

    if format == "parquet":
        import_pyarrow()
    write = {"npz": write_npz, "npy": write_npy, "csv": write_csv, "parquet": write_parquet}
    for feature in read_features(path, parse_names(features) if features else ()):
        target = output / (feature.name if format == "npy" else f"{feature.name}.{format}")
        write[format](feature, target, pool)
        frames = sum(clip.frames for clip in feature.clips)
        amount = counted(len(feature.clips), "clip")
        say(f"{target}: {amount}" if pool else f"{target}: {amount}, {counted(frames, 'frame')}")
