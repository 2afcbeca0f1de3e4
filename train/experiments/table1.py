"""Table I of the paper: every method with every feature set, on every dataset.

``reports/table1-DATASET.json`` lists the runs of each cell of a dataset. Each time the table is
shown, it is computed from these runs, and written as CSV, Markdown and HTML together with the
numbers printed in the paper, see `paper_numbers`.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from featreg.datasets.base import FeatregError
from featreg.datasets.collections.registry import metric
from featreg.datasets.shards.hdf5 import atomic_path
from featreg.datasets.shards.workdir import DatasetDir

from ..config.config import Config
from ..config.options import configure
from ..data.aligned_set import AlignedSet
from ..evaluation.metrics import METRICS
from ..report.print_table import UNKNOWN
from ..training.run_dir import RunDir, run_dir
from ..training.versions import command_line
from .choose_alpha import Choice, with_alphas, with_seeds
from .compare import Group, Result, deviation, format_spread, group
from .params import METHODS

NAME = "table1"
"""Start of the names of the table's files in ``reports``."""


@dataclass(frozen=True, slots=True)
class Row:
    """A method with a feature set on a dataset.

    Attributes
    ----------
    dataset
        Name of the dataset in the working folder.
    method, features
        Names as in Table II; `features` is empty for the baseline.
    metric
        Name of the metric that is reported, and by which epochs were selected.
    mean, spread
        Mean and sample standard deviation (NaN for one seed) of the test metric over seeds.
    seeds
        Number of seeds.
    valid
        Mean of the validation metric.
    paper
        The number printed in the paper, verbatim; empty if unknown.
    alpha
        Weight of the regularizer; NaN without one.
    note
        Sentence on the choice of alpha; empty if only one alpha was tried.
    runs
        Names of the runs, joined by spaces.
    command
        The command line that created the row.
    """

    dataset: str
    method: str
    features: str
    metric: str
    mean: float
    spread: float
    seeds: int
    valid: float
    paper: str
    alpha: float
    note: str
    runs: str
    command: str

    @property
    def title(self) -> str:
        """Return method and features, such as ``Con-Reg (musicnn)``."""
        return f"{self.method} ({self.features})" if self.features else self.method


class Table(NamedTuple):
    """Table I, with the runs of its rows and the runs that it lacks.

    Attributes
    ----------
    rows
        The rows, dataset by dataset.
    groups
        The groups of runs of all rows.
    missing
        Names of runs that are no longer in the working folder, or not finished.
    damaged
        Name of a damaged run -> reason.
    """

    rows: list[Row]
    groups: list[Group]
    missing: list[str]
    damaged: dict[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs for one row: a configuration for each alpha, each with all seeds."""

    method: str
    candidates: Sequence[Sequence[Config]]


def plan(
    work: Path,
    device: str,
    options: Mapping[str, Any],
    datasets: Sequence[str],
    feature_sets: Sequence[str] | None,
    seeds: int,
    alphas: Sequence[float],
) -> list[Cell]:
    """Return all cells of the table, dataset by dataset, in the order of the paper.

    Parameters
    ----------
    work, device, options
        As in `configure`; `options` does not contain dataset, method and features.
    datasets
        Names of datasets in the working folder.
    feature_sets
        Feature sets such as ``vggish`` or ``vggish+openl3``; None for each aligned feature and,
        if there are several, all of them combined.
    seeds
        Number of seeds of each configuration.
    alphas
        Weights to choose from; if empty, the preset's or else the paper's.
    """
    cells = []
    for dataset in datasets:
        shared = {**options, "dataset": dataset, "fraction": 1.0}
        plain = {"fusion": "none", "reg": "none", "features": None}
        baseline = configure(work, device, {**shared, **plain})
        sets = feature_sets or _aligned_sets(work, baseline)
        wanted = [("baseline", baseline)]
        for method, (fusion, reg) in METHODS.items():
            for features in sets:
                settings = {"fusion": fusion, "reg": reg, "features": features}
                wanted.append((method, configure(work, device, {**shared, **settings})))
        cells += [
            Cell(method, [with_seeds(each, seeds) for each in with_alphas(config, alphas)])
            for method, config in wanted
        ]
    return cells


def datasets_with_shards(work: Path) -> list[str]:
    """Return the names of the datasets with aligned shards in the working folder.

    Raises
    ------
    FeatregError
        If there is none.
    """
    found = sorted({path.parents[2].name for path in work.glob("*/aligned/*/*.h5")})
    if not found:
        raise FeatregError(
            f"{work}: no aligned features here; run `prep extract` and `prep align --resolution "
            "0.1` first, or select another working folder with --work"
        )
    return found


def _aligned_sets(work: Path, config: Config) -> list[str]:
    names = AlignedSet(DatasetDir(work / config.dataset).aligned(config.aligned)).features()
    return [*names, "+".join(names)] if len(names) > 1 else list(names)


def record(work: Path, cells: Iterable[Cell], printed: Mapping[tuple[str, ...], str]) -> None:
    """Write the names of the runs of all cells, to one file per dataset.

    Parameters
    ----------
    work
        The working folder.
    cells
        The cells returned by `plan`.
    printed
        The paper's numbers returned by `read_printed`.
    """
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        config = cell.candidates[0][0]
        key = (config.dataset, cell.method, "+".join(config.features))
        runs = [[run_dir(work, each).name for each in seeded] for seeded in cell.candidates]
        about = {"method": cell.method, "paper": printed.get(key, ""), "runs": runs}
        by_dataset.setdefault(config.dataset, []).append(about)
    for dataset, listed in by_dataset.items():
        path = work / "reports" / f"{NAME}-{dataset}.json"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"command": command_line(), "cells": listed}, indent=2))


def read(work: Path, dataset: str | None = None) -> Table:
    """Compute the table from the existing runs that `record` listed.

    Parameters
    ----------
    work
        The working folder.
    dataset
        Dataset of the rows; None for all datasets.

    Raises
    ------
    FeatregError
        If a file that `record` wrote is damaged.
    """
    table = Table([], [], [], {})
    results: list[Result] = []
    which = "*" if dataset is None else glob.escape(dataset)
    for path in sorted(work.glob(f"reports/{NAME}-{which}.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            cells = [(each["method"], each["paper"], each["runs"]) for each in values["cells"]]
            command = str(values["command"])
        except (KeyError, TypeError, ValueError):
            raise FeatregError(
                f"{path}: damaged; run `train table1` again, which uses the existing runs"
            ) from None
        for method, paper, names in cells:
            found = [[_result(work / "runs" / str(each), table) for each in some] for some in names]
            tried = [[result for result in some if result is not None] for some in found]
            tried = [some for some in tried if some]
            if tried:
                choice = Choice([Group(some[0].config.title, some) for some in tried])
                table.rows.append(_row(method, paper, command, choice))
                results += choice.chosen.results
    table.groups.extend(group(results) if results else ())
    return table


def _result(path: Path, table: Table) -> Result | None:
    """Return an intact run; else add it to the table's missing or damaged runs."""
    run = RunDir(path)
    if not run.finished:
        table.missing.append(run.name)
        return None
    try:
        run.verify()
    except FeatregError as error:
        table.damaged[run.name] = str(error)
        return None
    return Result(run)


def _row(method: str, paper: str, command: str, choice: Choice) -> Row:
    chosen, config = choice.chosen, choice.chosen.config
    values = list(chosen.values(config.metric).values())
    usual = metric(config.dataset, chosen.results[0].about["data"]["task"])
    return Row(
        dataset=config.dataset,
        method=method,
        features="+".join(config.features),
        metric=config.metric,
        mean=float(np.mean(values)),
        spread=deviation(values),
        seeds=len(values),
        valid=float(np.mean(list(chosen.values(config.metric, "valid").values()))),
        paper=paper if config.metric == usual else "",  # the paper reports the usual metric only
        alpha=config.alpha if config.reg != "none" else float("nan"),
        note=choice.sentence() if len(choice.tried) > 1 else "",
        runs=" ".join(result.folder.name for result in chosen.results),
        command=command,
    )


def wide(table: Sequence[Row]) -> pd.DataFrame:
    """Return the table for display: methods and features (rows), datasets (columns)."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in table:
        line = cells.setdefault((row.method, row.features), {})
        line[f"{row.dataset}: {METRICS[row.metric].title}"] = format_spread(row.mean, row.spread)
        line[f"{row.dataset}: paper"] = row.paper or UNKNOWN
    columns = list(dict.fromkeys(name for line in cells.values() for name in line))
    order = ["baseline", *METHODS]
    lines = [
        {"method": method, "features": features or UNKNOWN}
        | {name: cells[method, features].get(name, UNKNOWN) for name in columns}
        for method, features in sorted(cells, key=lambda key: order.index(key[0]))
    ]
    shown: pd.DataFrame = pd.DataFrame(lines)
    return shown


def notes(table: Sequence[Row], missing: Sequence[str] = ()) -> list[str]:
    """Return the notes below the table; `missing` as in `Table`."""
    seeds = sorted({row.seeds for row in table})
    counted = " to ".join(str(count) for count in sorted({seeds[0], seeds[-1]}))
    found = [
        f"Mean ± sample standard deviation over {counted} seeds on the test split; each run is "
        "tested at its best epoch on the validation split."
        if seeds[-1] > 1
        else "One seed per method, on the test split, so that the variation between seeds is "
        "unknown."
    ]
    made = dict.fromkeys((row.dataset, row.command) for row in table)
    found += [f"{dataset}: created by `{command}`." for dataset, command in made if command]
    if any(not row.paper for row in table):
        found.append(
            f"paper: the number printed in Table I of the paper; {UNKNOWN} if featreg does not "
            "contain it, or the paper has no such row, or reports another metric."
        )
    found += [row.note for row in table if row.note]
    found += [
        f"alpha of {row.title} on {row.dataset} is {row.alpha:g}; no other value was tried."
        for row in table
        if not row.note and np.isfinite(row.alpha)
    ]
    if missing:
        names = ", ".join(f"runs/{name}" for name in missing)
        found.append(f"Missing runs: {names}; run `train table1` again to train them.")
    return found


def markdown(table: Sequence[Row], notes: Sequence[str]) -> str:
    """Return the table for display, followed by the notes, in Markdown."""
    shown = wide(table)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def write(table: Sequence[Row], notes: Sequence[str], folder: Path) -> None:
    """Write ``table1.csv`` and ``table1.md``, atomically."""
    with atomic_path(folder / f"{NAME}.csv") as temporary:
        pd.DataFrame([asdict(row) for row in table]).to_csv(temporary, index=False)
    with atomic_path(folder / f"{NAME}.md") as temporary:
        temporary.write_text(markdown(table, notes), encoding="utf-8")
