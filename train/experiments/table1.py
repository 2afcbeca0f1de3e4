"""Table I of the paper: every method with every feature set, on every dataset.

``reports/table1.csv`` holds the table, a row for each method, feature set and dataset;
Markdown and HTML are made of it. Printed numbers come from ``paper_table1.csv`` beside
this file; where it has none, the table has a dash.
"""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections.registry import metric
from featreg.datasets.locks import LOCK, locked
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.options import configure
from ..config.presets import Config
from ..evaluation.metrics import METRICS
from ..report.print_table import UNKNOWN
from ..training.run_dir import RunDir
from .choose_alpha import Choice, with_alphas, with_seeds
from .command_line import typed
from .compare import Group, Result, deviation, group, spread_of
from .params import METHODS
from .sweep import Runner

NAME = "table1"
"""Of the files in ``reports``."""

_WRITTEN = 1e-9  # more than a number changes when it is written and read

_PRINTED = ("dataset", "method", "features", "value")


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
        What was typed; empty in tables that do not say.
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
    command: str = ""

    @property
    def title(self) -> str:
        """Method and features in words: ``Con-Reg (musicnn)``."""
        return f"{self.method} ({self.features})" if self.features else self.method


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


def rows(
    cells: Iterable[Cell], runner: Runner, printed: Mapping[tuple[str, ...], str]
) -> list[Row]:
    """The table, of runs that `runner` has made, and of what `read_printed` gives."""
    return [_row(cell, runner, printed) for cell in cells]


def _row(cell: Cell, runner: Runner, printed: Mapping[tuple[str, ...], str]) -> Row:
    tried = [runner.group(configs) for configs in cell.candidates]
    choice = Choice(tried)
    chosen, config = choice.chosen, choice.chosen.config
    values = list(chosen.values(config.metric).values())
    features = "+".join(config.features)
    usual = metric(config.dataset, chosen.results[0].about["data"]["task"])
    paper = printed.get((config.dataset, cell.method, features), "")
    return Row(
        dataset=config.dataset,
        method=cell.method,
        features=features,
        metric=config.metric,
        mean=float(np.mean(values)),
        spread=deviation(values),
        seeds=len(values),
        valid=float(np.mean(list(chosen.values(config.metric, "valid").values()))),
        paper=paper if config.metric == usual else "",  # the paper's is of the usual metric
        alpha=config.alpha if config.reg != "none" else float("nan"),
        note=choice.sentence() if len(tried) > 1 else "",
        runs=" ".join(result.folder.name for result in chosen.results),
        command=typed(),
    )


def groups_of(table: Sequence[Row], work: Path) -> list[Group]:
    """The runs of the table that are in the working folder: older ones may have been removed."""
    runs = [RunDir(work / "runs" / name) for row in table for name in row.runs.split()]
    return group([Result(run) for run in runs if run.finished])


def removed(table: Iterable[Row], groups: Iterable[Group]) -> list[tuple[Row, list[str]]]:
    """Rows that keep numbers of runs which are not there any more, with these runs' names."""
    there = {run.folder.name for each in groups for run in each.results}
    found = [(row, [name for name in row.runs.split() if name not in there]) for row in table]
    return [(row, names) for row, names in found if names]


def removed_notes(table: Iterable[Row], groups: Iterable[Group]) -> list[str]:
    """What must be said of them."""
    return [
        f"{row.title} on {row.dataset}: run removed, its number is kept: "
        f"{', '.join(f'runs/{name}' for name in names)}."
        for row, names in removed(table, groups)
    ]


def replaced_notes(table: Iterable[Row], groups: Iterable[Group]) -> list[str]:
    """What must be said of rows whose runs are there, but not with the row's number any more."""
    tests = {run.folder.name: run.report["test"] for each in groups for run in each.results}
    found = []
    for row in table:
        names = row.runs.split()
        if not tests.keys() >= set(names):
            continue  # see `removed`
        mean = float(np.mean([tests[name].get(row.metric, np.nan) for name in names]))
        if not abs(mean - row.mean) <= _WRITTEN:  # nor NaN
            found.append(
                f"{row.title} on {row.dataset}: {row.mean:.3f} is kept, but its runs were made "
                f"again since, and now have {mean:.3f}; run `train table1` again."
            )
    return found


def read_printed(path: Path | None = None) -> dict[tuple[str, ...], str]:
    """The paper's printed numbers, by dataset, method and features.

    Parameters
    ----------
    path
        A CSV with the columns dataset, method, features and value, for readers who have
        the paper at hand; None for what featreg knows.

    Raises
    ------
    UsageError
        If it is no such file, or a column is missing.
    """
    source = path or files(__package__).joinpath("paper_table1.csv")
    try:
        text = io.StringIO(source.read_text(encoding="utf-8"))
        found = pd.read_csv(text, comment="#", dtype=str, keep_default_na=False)
        if not isinstance(found.index, pd.RangeIndex):  # pandas takes what is left for names
            raise ValueError("rows have more cells than the header")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: no CSV in UTF-8 ({reason})") from None
    if missing := [name for name in _PRINTED if name not in found.columns]:
        raise UsageError(
            f"{path}: no column {', '.join(missing)}; printed numbers need the columns "
            f"{', '.join(_PRINTED)}, a row for each number"
        )
    return {(d, m, f): value for d, m, f, value in found[list(_PRINTED)].to_numpy().tolist()}


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


def notes(table: Sequence[Row]) -> list[str]:
    """What a reader of the table must know."""
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
    return found


def markdown(table: Sequence[Row], said: Sequence[str]) -> str:
    """The wide table, and what must be said below it."""
    shown = wide(table)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + "\n\n" + "\n".join(f"- {note}" for note in said) + "\n"


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """`new`, and what `old` has of other datasets; each dataset stays where it stood."""
    made = {row.dataset for row in new}
    order = list(dict.fromkeys(row.dataset for row in [*old, *new]))
    kept = [row for row in old if row.dataset not in made]
    return sorted([*kept, *new], key=lambda row: order.index(row.dataset))


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold the table in `folder` between reading and writing it: others wait for their turn."""
    return locked(folder / LOCK, "mend that, or work in another folder (--work)")


def write(table: Sequence[Row], said: Sequence[str], folder: Path) -> None:
    """``table1.csv`` and ``table1.md``, atomically."""
    with atomic_path(folder / f"{NAME}.csv") as temporary:
        pd.DataFrame([asdict(row) for row in table]).to_csv(temporary, index=False)
    with atomic_path(folder / f"{NAME}.md") as temporary:
        temporary.write_text(markdown(table, said), encoding="utf-8")


def read(folder: Path) -> list[Row]:
    """What `write` wrote; nothing if there is none."""
    path = folder / f"{NAME}.csv"
    if not path.is_file():
        return []
    types: dict[Hashable, Any] = {field.name: str for field in fields(Row) if field.type == "str"}
    found = pd.read_csv(
        path,
        dtype={**types, "seeds": int},
        keep_default_na=False,
        na_values={"spread": [""], "alpha": [""]},
    )
    return [Row(*values) for values in found.itertuples(index=False, name=None)]
