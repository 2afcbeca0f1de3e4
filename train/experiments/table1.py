"""Table I of the paper: every method with every feature set, on every dataset.

``reports/table1-DATASET.json`` names the runs of a dataset's cells. The table is made of these
runs each time that it is shown, and written as CSV, Markdown and HTML. Beside them stand the
numbers that the paper prints, see `paper_numbers`.
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

from ..config.options import configure
from ..config.presets import Config
from ..evaluation.metrics import METRICS
from ..report.print_table import UNKNOWN
from ..training.run_dir import RunDir, run_dir
from ..training.versions import typed
from .choose_alpha import Choice, with_alphas, with_seeds
from .compare import Group, Result, deviation, group, spread_of
from .params import METHODS

NAME = "table1"
"""Of the files in ``reports``."""


@dataclass(frozen=True, slots=True)
class Row:
    """A method with a feature set on a dataset.

    Attributes
    ----------
    dataset
        Name in the working folder.
    method, features
        As in Table II; `features` is empty for the baseline.
    metric
        Name of what selected the epochs, and is reported.
    mean, spread
        Of the test metric over seeds; the sample standard deviation of one is NaN.
    seeds
        How many.
    valid
        Mean of the validation metric.
    paper
        The printed number, as printed; empty if it is not known.
    alpha
        Weight of the regularizer, NaN without one.
    note
        How alpha was chosen; empty if it was not.
    runs
        Names of the runs, joined by spaces.
    command
        The command line that made the row.
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
        """Method and features in words: ``Con-Reg (musicnn)``."""
        return f"{self.method} ({self.features})" if self.features else self.method


class Table(NamedTuple):
    """Table I: its rows, their runs in groups, and runs that it lacks.

    Attributes
    ----------
    rows
        Dataset by dataset.
    groups
        The runs of all rows.
    missing
        Names of runs that are not in the working folder any more, or not finished.
    damaged
        Why other runs are left out, by name.
    """

    rows: list[Row]
    groups: list[Group]
    missing: list[str]
    damaged: dict[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run for a row: a configuration for every alpha, each with every seed."""

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
    """All cells of the table, dataset by dataset, in the order of the paper.

    Parameters
    ----------
    work, device, options
        As in `configure`; `options` are without dataset, method and features.
    datasets
        Names in the working folder.
    feature_sets
        ``vggish+openl3`` for a combination; None for every aligned feature, and for all
        of them side by side where there are several.
    seeds
        Runs of each configuration.
    alphas
        Weights to choose from; none for the preset's or the paper's.
    """
    cells = []
    for dataset in datasets:

        def cell(method: str, fusion: str, reg: str, features: str | None) -> Cell:
            asked = {"fusion": fusion, "reg": reg, "features": features, "fraction": 1.0}
            config = configure(work, device, {**options, **asked, "dataset": dataset})  # noqa: B023
            found = [with_seeds(each, seeds) for each in with_alphas(config, alphas)]
            return Cell(method, found)

        baseline = cell("baseline", "none", "none", None)
        cells.append(baseline)
        sets = feature_sets or _aligned_sets(work, baseline.candidates[0][0])
        for method, (fusion, reg) in METHODS.items():
            cells += [cell(method, fusion, reg, features) for features in sets]
    return cells


def datasets_with_shards(work: Path) -> list[str]:
    """The datasets in the working folder that have something aligned.

    Raises
    ------
    FeatregError
        If there is none.
    """
    found = sorted({path.parents[2].name for path in work.glob("*/aligned/*/*.h5")})
    if not found:
        raise FeatregError(
            f"{work}: nothing is aligned here; run `prep extract` and `prep align --resolution "
            "0.1` first, or name the working folder with --work"
        )
    return found


def _aligned_sets(work: Path, config: Config) -> list[str]:
    from featreg.datasets.shards.workdir import DatasetDir

    from ..data.aligned_set import AlignedSet

    names = AlignedSet(DatasetDir(work / config.dataset).aligned(config.aligned)).features()
    return [*names, "+".join(names)] if len(names) > 1 else list(names)


def record(work: Path, cells: Iterable[Cell], printed: Mapping[tuple[str, ...], str]) -> None:
    """Write which runs make up the cells, a file for each dataset.

    Parameters
    ----------
    work
        The working folder.
    cells
        What `plan` gives.
    printed
        What `read_printed` gives.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        config = cell.candidates[0][0]
        key = (config.dataset, cell.method, "+".join(config.features))
        runs = [[run_dir(work, each).name for each in seeded] for seeded in cell.candidates]
        about = {"method": cell.method, "paper": printed.get(key, ""), "runs": runs}
        found.setdefault(config.dataset, []).append(about)
    for dataset, listed in found.items():
        path = work / "reports" / f"{NAME}-{dataset}.json"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"command": typed(), "cells": listed}, indent=2))


def read(work: Path, dataset: str | None = None) -> Table:
    """The table of the runs that are there, as far as `record` names them.

    Parameters
    ----------
    work
        The working folder.
    dataset
        Whose rows; None for those of every dataset.

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
                f"{path}: damaged; run `train table1` again, which uses the runs that are there"
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
    """A sound run; else None, and the table says why."""
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
        paper=paper if config.metric == usual else "",  # the paper's is of the usual metric
        alpha=config.alpha if config.reg != "none" else float("nan"),
        note=choice.sentence() if len(choice.tried) > 1 else "",
        runs=" ".join(result.folder.name for result in chosen.results),
        command=command,
    )


def wide(table: Sequence[Row]) -> pd.DataFrame:
    """As the paper has it: methods and features down, datasets across, all in words."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in table:
        found = cells.setdefault((row.method, row.features), {})
        found[f"{row.dataset}: {METRICS[row.metric].title}"] = spread_of(row.mean, row.spread)
        found[f"{row.dataset}: paper"] = row.paper or UNKNOWN
    columns = list(dict.fromkeys(name for found in cells.values() for name in found))
    order = ["baseline", *METHODS]
    lines = [
        {"method": method, "features": features or UNKNOWN}
        | {name: cells[method, features].get(name, UNKNOWN) for name in columns}
        for method, features in sorted(cells, key=lambda key: order.index(key[0]))
    ]
    shown: pd.DataFrame = pd.DataFrame(lines)
    return shown


def notes(table: Sequence[Row], missing: Sequence[str] = ()) -> list[str]:
    """What a reader of the table must know; `missing` as in `Table`."""
    seeds = sorted({row.seeds for row in table})
    counted = " to ".join(str(count) for count in sorted({seeds[0], seeds[-1]}))
    found = [
        f"Mean ± sample standard deviation over {counted} seeds, on the test split; "
        "each run at its best epoch on the validation split."
        if seeds[-1] > 1
        else "One seed each, on the test split: how far the numbers vary from seed to seed is "
        "not known."
    ]
    made = dict.fromkeys((row.dataset, row.command) for row in table)
    found += [f"{dataset}: made by `{command}`." for dataset, command in made if command]
    if any(not row.paper for row in table):
        found.append(
            f"paper: the number that Table I of the paper prints; {UNKNOWN} where it is not "
            "known to featreg, or the paper has no such row, or another metric."
        )
    found += [row.note for row in table if row.note]
    found += [
        f"alpha of {row.title} on {row.dataset} is {row.alpha:g}; none other was tried."
        for row in table
        if not row.note and np.isfinite(row.alpha)
    ]
    if missing:
        gone = ", ".join(f"runs/{name}" for name in missing)
        found.append(f"Left out, since it is not there: {gone}; `train table1` makes it again.")
    return found


def markdown(table: Sequence[Row], said: Sequence[str]) -> str:
    """The wide table, and what must be said below it."""
    shown = wide(table)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + "\n\n" + "\n".join(f"- {note}" for note in said) + "\n"


def write(table: Sequence[Row], said: Sequence[str], folder: Path) -> None:
    """``table1.csv`` and ``table1.md`` for readers, atomically."""
    with atomic_path(folder / f"{NAME}.csv") as temporary:
        pd.DataFrame([asdict(row) for row in table]).to_csv(temporary, index=False)
    with atomic_path(folder / f"{NAME}.md") as temporary:
        temporary.write_text(markdown(table, said), encoding="utf-8")
