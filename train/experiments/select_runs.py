"""Selection of the finished, undamaged runs for a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from featreg.datasets.base import FeatregError
from featreg.datasets.console import warn
from featreg.datasets.shards.workdir import choose

from ..training.find_runs import find_run, find_runs
from ..training.run_dir import RunDir


def select_runs(
    work: Path, names: Sequence[str], dataset: str | None
) -> tuple[list[RunDir], dict[str, str]]:
    """Return the finished runs on one dataset whose files match their checksums.

    Parameters
    ----------
    work
        The working folder.
    names
        Names or paths of runs; duplicates are ignored. If empty, all runs on the dataset.
    dataset
        Dataset of the runs; None if all runs are on one dataset.

    Returns
    -------
    runs
        The selected runs.
    damaged
        Name of a damaged run -> reason; these runs are also named in warnings.

    Raises
    ------
    FeatregError
        If a named run is not finished, or no run can be used.
    UsageError
        If the runs are on several datasets, or a named run is a pretraining.
    """
    runs = list(dict.fromkeys(find_run(work, name) for name in names)) or find_runs(work)
    found: dict[RunDir, str] = {}
    damaged: dict[str, str] = {}
    for run in runs:
        if not run.finished and names:
            raise FeatregError(f"{run.path}: not finished; resume it with `train run`")
        if not run.finished:
            warn(f"{run.name} is not finished and is skipped")
            continue
        if run.pretraining and not names:
            continue
        run.require_classifier()
        try:
            found[run] = run.config().dataset
        except FeatregError as error:
            damaged[run.name] = str(error)
    empty = f"{work / 'runs'}: no finished run; run `train run` first"
    if damaged and not found:
        empty = "; ".join(damaged.values())
    chosen = choose("dataset with runs", "--dataset", sorted(set(found.values())), dataset, empty)
    intact = []
    for run in (run for run in found if found[run] == chosen):
        try:
            run.verify()
            intact.append(run)
        except FeatregError as error:
            damaged[run.name] = str(error)
    if not intact:
        raise FeatregError("; ".join(damaged.values()))
    for name, reason in damaged.items():
        warn(f"{name} is skipped: {reason}")
    return intact, damaged


def refuse_damaged(damaged: Mapping[str, str]) -> None:
    """Raise an error if runs were skipped, after a command has shown the other runs.

    Raises
    ------
    FeatregError
        If any run was skipped because of a damaged file.
    """
    if damaged:
        count = "1 damaged run was" if len(damaged) == 1 else f"{len(damaged)} damaged runs were"
        raise FeatregError(f"{count} skipped: {', '.join(damaged)} (see the warnings above)")
