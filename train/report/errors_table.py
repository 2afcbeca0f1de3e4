"""The table of ``train errors``: one row per clip and list."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..evaluation.run_errors import Key, RunErrors
from .clip_media import Media

_COLUMNS = ("list", "rank", "clip_id", "split", "score", "class", "predicted", "labels", "audio")


def errors_table(found: RunErrors, media: Mapping[Key, Media]) -> pd.DataFrame:
    """Return the clips of all lists.

    Parameters
    ----------
    found
        The lists.
    media
        Media of the clips, see `clip_media`.

    Returns
    -------
    Data frame with the columns ``list``, ``rank`` (from 1), ``clip_id``, ``split``, ``score``,
    ``class`` (that the score is about, or empty), ``predicted`` and ``labels`` (names of
    classes), ``audio`` (file, or empty), and for each class ``p:CLASS`` (probability) and
    ``true:CLASS`` (label; empty if it is not annotated).
    """
    rows: list[tuple[object, ...]] = []
    for each in found.lists:
        clips = each.clips
        truth = np.where(clips.label_mask > 0, clips.label.astype(str), "")
        for row, key in enumerate(each.keys):
            split, clip_id = key
            about = each.classes[row]
            rows.append(
                (
                    each.kind,
                    row + 1,
                    clip_id,
                    split,
                    f"{each.score[row]:.6f}",
                    found.classes[about] if about >= 0 else "",
                    "; ".join(found.names(each.predicted[row])),
                    "; ".join(found.names(clips.label[row] * clips.label_mask[row])),
                    media[key].file,
                    *(f"{p:.6f}" for p in clips.probability[row]),
                    *truth[row],
                )
            )
    of_classes = [f"{kind}:{name}" for kind in ("p", "true") for name in found.classes]
    # Objects, because file names may contain bytes that are not UTF-8.
    table: pd.DataFrame = pd.DataFrame(rows, columns=[*_COLUMNS, *of_classes], dtype=object)
    return table
