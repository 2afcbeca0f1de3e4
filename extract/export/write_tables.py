"""Exported features as tables: CSV, or Parquet with the package pyarrow.

A table has one line per frame: ``clip_id``, ``time_s`` (the center of the frame in its clip, in
seconds), then one column per dimension, called ``FEATURE_0`` and so on. With pooling, there is one
line per clip: ``clip_id``, ``split`` and ``labels`` (the names of the classes that are present, as
``a|b``) where they are known, then the values; those of ``mean+std`` are called ``FEATURE_mean_0``
and ``FEATURE_std_0``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featreg.datasets.base import UsageError
from featreg.datasets.console import printable
from featreg.datasets.shards.atomic_file import atomic_path

from .pool import Pool, column_names
from .read_features import StoredClip, StoredFeature, Values
from .write_arrays import vectors

# Values that are collected before they are written: 64 MB.
_BLOCK = 1 << 24


def write_csv(feature: StoredFeature, path: Path, pool: Pool | None) -> None:
    """Write a CSV file; every float32 is written with as many digits as identify it."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        for number, block in enumerate(_blocks(feature, pool)):
            block.to_csv(file, index=False, header=number == 0, lineterminator="\n")


def write_parquet(feature: StoredFeature, path: Path, pool: Pool | None) -> None:
    """Write a Parquet file.

    Raises
    ------
    UsageError
        If pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow()
    with atomic_path(path) as temporary, ExitStack() as stack:
        writer: Any = None
        for block in _blocks(feature, pool):
            for name in block.select_dtypes(exclude="number"):
                block[name] = [printable(text) for text in block[name]]
            table = pyarrow.Table.from_pandas(block, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(temporary, table.schema))
            writer.write_table(table)


def import_pyarrow() -> tuple[Any, Any]:
    """The modules ``pyarrow`` and ``pyarrow.parquet``."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "--format parquet needs the package pyarrow: pip install '.[parquet]' in featreg's "
            "repository"
        ) from None
    return pyarrow, pyarrow.parquet


def _blocks(feature: StoredFeature, pool: Pool | None) -> Iterator[pd.DataFrame]:
    """The table, in blocks of about `_BLOCK` values; at least one block."""
    clips: list[StoredClip] = []
    collected: list[Values] = []
    size = 0
    for clip, values in zip(feature.clips, vectors(feature, pool), strict=True):
        clips.append(clip)
        collected.append(values)
        size += values.size
        if size >= _BLOCK:
            yield _table(feature, pool, clips, collected)
            clips, collected, size = [], [], 0
    if clips or not feature.clips:
        yield _table(feature, pool, clips, collected)


def _table(
    feature: StoredFeature, pool: Pool | None, clips: list[StoredClip], values: list[Values]
) -> pd.DataFrame:
    columns = column_names(feature.name, feature.dim, pool)
    stacked = np.concatenate([np.empty((0, len(columns)), np.float32), *values])
    counts = [len(each) for each in values]
    first: dict[str, Any] = {"clip_id": np.repeat([clip.clip_id for clip in clips], counts)}
    if pool is None:
        times = [feature.timing.centers(clip.frames) for clip in clips]
        first["time_s"] = np.concatenate([np.empty(0), *times])
    elif feature.classes is not None:
        first["split"] = [clip.split or "" for clip in clips]
        first["labels"] = [_labels(clip, feature.classes) for clip in clips]
    table: pd.DataFrame = pd.concat(
        [pd.DataFrame(first), pd.DataFrame(stacked, columns=columns)], axis=1
    )
    return table


def _labels(clip: StoredClip, classes: tuple[str, ...]) -> str:
    if clip.label is None:
        return ""
    return "|".join(name for name, there in zip(classes, clip.label, strict=True) if there)
