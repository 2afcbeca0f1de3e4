"""Existing runs of a working folder, and those that a user selects."""

from __future__ import annotations

import os
from pathlib import Path

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards.workdir import choose

from .run_dir import RunDir


def choose_run(work: Path, wanted: str | None, option: str = "--run") -> RunDir:
    """Return the finished run that the user selects.

    Parameters
    ----------
    work
        The working folder.
    wanted
        Name of a run in WORK/runs, or its folder; None for the only finished run.
    option
        Option that selects the run, for messages.

    Raises
    ------
    FeatregError
        If there is no finished run, or the selected run is not finished.
    UsageError
        If there is no run of that name, none is selected and several are finished, or the selected
        run is a pretraining.
    """
    if wanted is None:
        runs = [run for run in find_runs(work) if run.finished and not run.pretraining]
        finished = [run.name for run in runs]
        empty = f"{work / 'runs'}: no finished run; run `train run` first"
        return RunDir(work / "runs" / choose("run", option, finished, None, empty))
    run = find_run(work, wanted)
    if not run.finished:
        raise FeatregError(f"{run.path}: not finished; resume it with `train run`")
    run.require_classifier()
    return run


def find_run(work: Path, wanted: str) -> RunDir:
    """Return the run that the user selects, finished or not.

    Parameters
    ----------
    work
        The working folder.
    wanted
        Name of a run in WORK/runs, or the path of its folder, which may be ``.``.

    Raises
    ------
    UsageError
        If there is no such run.
    """
    for path in (work / "runs" / wanted, Path(wanted)):
        if (path / "config.json").is_file():
            return RunDir(Path(os.path.abspath(path)))  # links are not followed, to keep names
    existing = ", ".join(run.name for run in find_runs(work)) or "none"
    raise UsageError(f"{wanted}: no such run; existing runs: {existing}")


def find_runs(work: Path) -> list[RunDir]:
    """Return all runs in the working folder, sorted by name; a damaged run may lack a file."""
    files = [*work.glob("runs/*/config.json"), *work.glob("runs/*/report.json")]
    return [RunDir(folder) for folder in sorted({path.parent for path in files})]
