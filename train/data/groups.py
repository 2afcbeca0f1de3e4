"""Groups of clips, such as the recordings of one source: read from a column of a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from featreg.datasets.base import UsageError
from featreg.datasets.shards.workdir import DatasetDir


def read_groups(
    wanted: str, folder: DatasetDir, clip_ids: npt.NDArray[np.str_]
) -> npt.NDArray[np.str_]:
    """Return the group of each clip, of shape (clips,).

    Parameters
    ----------
    wanted
        ``COLUMN`` of the dataset's ``clips.csv``, or ``FILE.csv:COLUMN``. The file identifies the
        clips by the column ``clip_id``, or ``path`` if it has none. A clip whose cell is empty is a
        group of its own.
    folder
        The dataset's folder.
    clip_ids
        Ids of the clips.

    Raises
    ------
    UsageError
        If the file or column does not exist, or a clip is not in the file.
    """
    file, _, column = wanted.rpartition(":")
    path = Path(file) if file else folder.clips_csv
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--group {wanted}: {path}: cannot be read ({' '.join(str(error).split())})"
        ) from None
    key = "clip_id" if "clip_id" in table else "path"
    for name in (key, column):
        if name not in table:
            raise UsageError(
                f"--group {wanted}: {path}: column {name!r} not found; columns are "
                f"{', '.join(map(str, table.columns))}; give COLUMN or FILE.csv:COLUMN"
            )
    groups: dict[Any, Any] = dict(zip(table[key], table[column], strict=True))
    missing = [clip for clip in clip_ids.tolist() if clip not in groups]
    if missing:
        raise UsageError(
            f"--group {wanted}: {path}: {len(missing)} of {len(clip_ids)} clips are not in the "
            f"column {key!r}, such as {missing[0]!r}"
        )
    # The marks keep the id of a clip apart from the name of a group.
    return np.array(
        [f"={groups[clip]}" if groups[clip] else f"clip {clip}" for clip in clip_ids.tolist()]
    )
