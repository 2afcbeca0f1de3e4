"""Options of the folds of a cross-validation and of groups of clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from featreg.datasets.base import UsageError

from .config import Fold

_FOLD = click.option(
    "--fold",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="Fold to test; the fold before it validates, and the others train.  [default: the "
    "stored splits]",
)
_FOLDS = (
    click.option(
        "--folds",
        type=click.IntRange(3),
        metavar="COUNT",
        help="Number of folds to make, stratified by class and grouped; they are numbered from 1.  "
        "[default: the stored folds]",
    ),
    click.option(
        "--fold-seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        help="Seed of the folds that --folds makes.",
    ),
)
_GROUP = click.option(
    "--group",
    default="",
    show_default=False,
    metavar="[FILE.csv:]COLUMN",
    help="Column of WORK/DATASET/clips.csv, or of another CSV file with the column clip_id, whose "
    "equal values form a group, such as a source or an artist. Groups stay in one fold, and "
    "intervals are computed by resampling them.  [default: excerpts of one file stay in one fold; "
    "clips are resampled]",
)


def fold_options(command: Any) -> Any:
    """Add ``--fold``, ``--folds``, ``--fold-seed`` and ``--group`` to a command."""
    return _FOLD(folds_options(command))


def folds_options(command: Any) -> Any:
    """Add ``--folds``, ``--fold-seed`` and ``--group`` to a command."""
    for option in reversed((*_FOLDS, _GROUP)):
        command = option(command)
    return command


def choose_fold(options: Mapping[str, Any]) -> Fold | None:
    """Return the fold for the values of `fold_options`.

    Raises
    ------
    UsageError
        If folds are to be made, but none is chosen.
    """
    tested, count = options.get("fold"), options.get("folds")
    if tested is not None:
        return Fold(tested, count, options["fold_seed"] if count is not None else 0)
    if count is not None:
        raise UsageError(
            f"--folds {count}: choose the fold to test, such as --fold 1, or use `train "
            "cross-validate` for all of them"
        )
    return None
