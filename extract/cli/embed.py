"""``prep embed``: compute embeddings of audio files without a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featreg.datasets.console import counted, progress, say, warn

from .export import POOL

if TYPE_CHECKING:
    from ..export.pool import Pool
    from ..extractors.base import Precision


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--features",
    required=True,
    help="Features, separated by commas, such as vggish,openl3. Your own feature is MODULE:CLASS "
    "or NAME=SCHEME:SOURCE.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the embeddings.",
)
@POOL
@click.option(
    "--table",
    type=click.Choice(["csv", "parquet", "npz", "npy"]),
    help="Also write all embeddings of a feature to one table or one set of arrays, in the form "
    "of `prep export`.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device of the networks. auto: the GPU of this machine, if any.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    help="Precision of the networks' matrix products.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FEATURE.KEY=VALUE",
    help="Setting of a feature; may be repeated.",
)
def embed(
    files: tuple[Path, ...],
    features: str,
    output: Path,
    pool: Pool | None,
    table: str | None,
    device: str,
    precision: Precision,
    assignments: tuple[str, ...],
) -> None:
    """Compute embeddings of audio FILES, which may be folders, without a dataset.

    Each file gives OUTPUT/FEATURE/FILE.npz with the arrays values (frames, dim), times (centers
    of the frames in seconds) and duration_s. Files that cannot be processed are named, the
    remaining files are still processed, and the exit status is 1. Files that are up to date are
    skipped.

    \b
    Example:
        prep embed song.mp3 recordings/ --features musicnn -o embeddings
        prep embed recordings/ --features vggish,openl3 --pool mean --table csv -o embeddings
    """
    from featreg.datasets.base import FeatregError

    from ..export.embed_files import check_settings, embed_files, find_files, stored_feature
    from ..export.write_arrays import write_npy, write_npz
    from ..export.write_tables import import_pyarrow, write_csv, write_parquet
    from ..extractors.feature_options import parse_names

    if table == "parquet":
        import_pyarrow()
    found = find_files(files)
    extractors = _load(parse_names(features), assignments, device, precision)
    check_settings(output, extractors, pool, precision)
    todo = [file for file in found if not file.is_done(output, [each.name for each in extractors])]
    failed = set()
    with progress("embed", len(todo)) as advance:
        for file, reason in embed_files(todo, extractors, output, pool):
            advance()
            if reason:
                failed.add(file)
                warn(reason)
    fresh, old = counted(len(todo) - len(failed), "file"), len(found) - len(todo)
    say(f"{output}: {fresh} embedded, {old:,} up to date, {len(failed):,} failed")
    if table is not None:
        write = {"npz": write_npz, "npy": write_npy, "csv": write_csv, "parquet": write_parquet}
        good = [file for file in found if file not in failed]
        for extractor in extractors:
            suffix = "-table" if table == "npy" else f".{table}"
            target = output / f"{extractor.name}{suffix}"
            write[table](stored_feature(good, extractor, output, pool), target, pool)
            say(f"{target}: {counted(len(good), 'file')}")
    if failed:
        raise FeatregError(f"{len(failed)} of {len(found)} files failed; they are named above")


def _load(names: list[str], assignments: tuple[str, ...], device: str, precision: Precision) -> Any:
    """The extractors of the features, with their settings."""
    from featreg.datasets.base import UsageError

    from ..extractors.feature_options import parse_settings
    from ..extractors.registry import find_sources
    from ..load_extractor import load_extractor
    from ..pipeline.dask_pool import count_gpus

    settings = parse_settings(assignments)
    sources = find_sources(names, {})
    for name in settings:
        if name not in sources:
            raise UsageError(f"--set {name}.…: {name} is not in --features {','.join(names)}")
    where = "cuda" if count_gpus(device) else "cpu"
    extractors = []
    for word, name in zip(names, sources, strict=True):
        values: dict[str, Any] = settings.get(name, {})
        try:
            extractor = load_extractor(word, device=where, precision=precision, **values)
        except UsageError as error:
            raise UsageError(str(error).removeprefix("load_extractor: ")) from None
        extractors.append(extractor)
    return extractors
