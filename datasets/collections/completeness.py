"""What the readers of published datasets share: whether all that was published is there."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..base import SPLITS, Clip, FeatregError
from .info import DatasetInfo


def names_in(folder: Path) -> frozenset[str]:
    """Names in a folder, in one look; none if there is no such folder."""
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise FeatregError(f"{folder}: cannot be read ({error.strerror})") from None


def wrong_root(info: DatasetInfo, root: Path, expected: str) -> FeatregError:
    """The error of a folder that is not the dataset's: what was expected and what is there."""
    here = sorted(names_in(root))
    found = few(here) or ("an empty folder" if root.is_dir() else "no such folder")
    return FeatregError(
        f"{root}: expected {expected}; found {found}. {info.needs}; "
        "another folder is named with --root"
    )


def few(names: Sequence[str]) -> str:
    """The first names and the number of the others, which ``--verbose`` names."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5:,} more" if len(names) > 5 else shown


def say_all(what: str, names: Sequence[str]) -> None:
    """With ``--verbose``, a line for each name of which `few` shows the first."""
    for name in names:
        logging.getLogger("featreg").debug("%s: %s", what, name)


def check_complete(
    info: DatasetInfo,
    clips: Sequence[Clip],
    missing: Sequence[str],
    allow_missing: bool,
    also: Sequence[str] = (),
) -> tuple[str, ...]:
    """Notes for the dataset: none where all published clips are there.

    Parameters
    ----------
    info
        What was published.
    clips
        Those that are there.
    missing
        Annotated clips that have no file.
    allow_missing
        Whether the user accepts other clips than the published ones.
    also
        What else is to be said where something is missing or wrong, a sentence each.

    Raises
    ------
    FeatregError
        If anything is missing and the user did not accept it, or nothing is there.
    """
    counts = Counter(clip.split for clip in clips)
    found = tuple(counts[split] for split in SPLITS)
    sentences = []
    if found != info.clips:
        sentences.append(
            f"{_counts(found)} clips (training / validation / test), "
            f"published are {_counts(info.clips)}"
        )
    if missing:
        say_all(f"{info.name}: no audio file", missing)
        sentences.append(f"{len(missing):,} without an audio file ({few(missing)})")
    sentences += also
    if not sentences:
        return ()
    account = f"{info.name}: {'; '.join(sentences)}"
    if clips and allow_missing:
        return (account,)
    remedy = "; to use what is there, give --allow-missing" if clips else ""
    raise FeatregError(f"{account}. {info.needs}{remedy}")


def _counts(counts: Sequence[int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)
