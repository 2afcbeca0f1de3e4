"""Checks of whether a folder contains all clips of a published dataset."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..base import SPLITS, Clip, FeatregError
from .info import DatasetInfo


def names_in(folder: Path) -> frozenset[str]:
    """Names of the files in a folder; empty if the folder does not exist."""
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise FeatregError(f"{folder}: cannot be read ({error.strerror})") from None


def wrong_root(info: DatasetInfo, root: Path, expected: str) -> FeatregError:
    """Error for a folder that does not contain the dataset, with the expected and found files."""
    here = sorted(names_in(root))
    found = few(here) or ("an empty folder" if root.is_dir() else "no such folder")
    return FeatregError(
        f"{root}: expected {expected}; found {found}. {info.needs}; give another folder with --root"
    )


def few(names: Sequence[str]) -> str:
    """The first five names and the number of the others; ``--verbose`` prints all of them."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5:,} more" if len(names) > 5 else shown


def say_all(what: str, names: Sequence[str]) -> None:
    """With ``--verbose``, print a line for every name; `few` shows the first five only."""
    for name in names:
        logging.getLogger("featreg").debug("%s: %s", what, name)


def check_complete(
    info: DatasetInfo,
    clips: Sequence[Clip],
    missing: Sequence[str],
    allow_missing: bool,
    also: Sequence[str] = (),
) -> tuple[str, ...]:
    """Notes about missing clips for `Dataset.notes`; empty if all published clips are present.

    Parameters
    ----------
    info
        The published dataset.
    clips
        Clips that are present.
    missing
        Annotated clips without an audio file.
    allow_missing
        Whether the user accepts clips that differ from the published ones.
    also
        Further problems, one sentence each.

    Raises
    ------
    FeatregError
        If there is a problem and `allow_missing` is not set, or there are no clips.
    """
    counts = Counter(clip.split for clip in clips)
    found = tuple(counts[split] for split in SPLITS)
    sentences = []
    if found != info.clips:
        sentences.append(
            f"{_counts(found)} clips (training / validation / test), "
            f"expected {_counts(info.clips)} as published"
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
    remedy = "; to continue without them, use --allow-missing" if clips else ""
    raise FeatregError(f"{account}. {info.needs}{remedy}")


def _counts(counts: Sequence[int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)
