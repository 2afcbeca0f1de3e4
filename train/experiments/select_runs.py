"""The finished runs that a command shows; damaged ones are left out and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from featreg.datasets.base import FeatregError
from featreg.datasets.console import warn
from featreg.datasets.shards.workdir import choose

from ..training.run_dir import RunDir, find_run, find_runs


def select_runs(
    work: Path, names: Sequence[str], dataset: str | None
) -> tuple[list[RunDir], dict[str, str]]:
    """Finished runs of one dataset, each file of which equals its checksum.

    Parameters
    ----------
    work
        The working folder.
    names
        Runs, by name or path, each used once; none for all of the dataset.
    dataset
        The dataset of the runs; None if all are of one.

    Returns
    -------
    The runs, and why others are left out, by name. A warning says so, too.

    Raises
    ------
    FeatregError
        If a run that is named is not finished, or no run can be shown.
    UsageError
        If the runs are of several datasets.
    """
    runs = list(dict.fromkeys(find_run(work, name) for name in names)) or find_runs(work)
    found: dict[RunDir, str] = {}
    damaged: dict[str, str] = {}
    for run in runs:
        if not run.finished and names:
            raise FeatregError(f"{run.path}: not finished; `train run` goes on with it")
        if not run.finished:
            warn(f"{run.name} is not finished, and left out")
            continue
        try:
            found[run] = run.config().dataset
        except FeatregError as error:
            damaged[run.name] = str(error)
    empty = f"{work / 'runs'}: no finished run; run `train run` first"
    if damaged and not found:
        empty = "; ".join(damaged.values())
    chosen = choose("dataset with runs", "--dataset", sorted(set(found.values())), dataset, empty)
    sound = []
    for run in (run for run in found if found[run] == chosen):
        try:
            run.verify()
            sound.append(run)
        except FeatregError as error:
            damaged[run.name] = str(error)
    if not sound:
        raise FeatregError("; ".join(damaged.values()))
    for name, reason in damaged.items():
        warn(f"{name} is left out: {reason}")
    return sound, damaged


def refuse_damaged(damaged: Mapping[str, str]) -> None:
    """End a command that has shown the other runs.

    Raises
    ------
    FeatregError
        If any run was left out because of a damaged file.
    """
    if damaged:
        count = "1 damaged run was" if len(damaged) == 1 else f"{len(damaged)} damaged runs were"
        raise FeatregError(f"{count} left out: {', '.join(damaged)} (reasons above)")
